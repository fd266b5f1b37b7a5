"""Image classification: ``adapter`` is the task, light to import; the other modules do the work."""
