"""Semantic segmentation: ``adapter`` is the task, light to import; ``model`` needs mmseg, by way of ``openmmlab``."""
