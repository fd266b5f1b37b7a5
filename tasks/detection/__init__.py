"""Object detection: ``adapter`` is the task, light to import; ``model`` and the data set ``voc_boxes`` do the work."""
