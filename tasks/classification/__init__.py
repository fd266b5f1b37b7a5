"""Image classification: ``adapter`` is the task, light to import; ``model``, ``heads`` and ``fitting`` do the work."""
