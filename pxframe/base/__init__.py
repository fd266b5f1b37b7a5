"""What every room needs, and what has nothing to do with pruning.

``errors`` words messages, and ``options`` checks what users give. ``devices`` checks the names of devices, and sends
tensors to them. ``ranks`` brings several processes together, and ``bars`` shows progress. ``versions`` tells which
versions a result depends on.

Imports no other room of ``pxframe``.
"""
