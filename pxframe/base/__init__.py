"""Nothing about pruning: errors, files, paths, options, random states, versions and progress bars.

Imports no other room of ``pxframe``.
"""
