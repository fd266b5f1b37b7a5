"""Nothing about pruning: what every room needs to report errors, to check options and to handle files and models.

``errors`` and ``options`` word and check what users give. ``files``, ``scratch``, ``lock``, ``paths`` and ``archives``
read and write without loss. ``undisturbed`` leaves models and random states as they were, ``wrappers`` takes wrappers
off a model. ``versions`` tells what a result depends on, ``bars`` shows progress.

Imports no other room of ``pxframe``.
"""
