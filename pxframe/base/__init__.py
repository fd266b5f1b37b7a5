"""Nothing about pruning: errors, files, locks, paths, archives, options, random states, versions and progress bars.

Imports no other room of ``pxframe``.
"""
