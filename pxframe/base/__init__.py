"""Nothing about pruning: what every room needs to report errors, to check options and to handle files and models.

``errors`` words messages, and ``options`` checks what users give. ``files``, ``scratch`` and ``lock`` write files and
folders without loss. ``paths`` finds data, ``archives`` unpacks it, and ``prepared`` lets a function write it once.
``undisturbed`` leaves models and random states as they were, and ``wrappers`` takes wrappers off a model. ``threads``
makes backward passes repeatable. ``versions`` tells which versions a result depends on. ``devices`` checks the names of
devices, and sends tensors to them. ``bars`` shows progress. ``ranks`` brings several processes together.

Imports no other room of ``pxframe``.
"""
