"""Tasks on images: their settings, data sets, models and metrics, as a base for tasks of one's own.

Imports ``training``, ``plugin`` and ``base``.
"""
