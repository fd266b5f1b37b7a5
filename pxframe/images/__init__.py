"""Tasks on images: settings, data sets, models and metrics, as a base for tasks of one's own.

``drawing`` chooses the images that are scored on, ``rehearsal`` tries one step of a run before any work begins.

Imports ``training``, ``plugin`` and ``base``.
"""
