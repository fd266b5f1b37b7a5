"""CLIP's ResNet-50, its image tower, by open_clip; see the base for the tasks."""

_base_ = ["../_base_/pretrained_resnet50.py"]

backbone = dict(type="open_clip", model="RN50", pretrained="openai")

_pixels = dict(mean=(122.7709383, 116.7460125, 104.09373615), std=(68.5005327, 66.6321375, 70.3231695))

prune = dict(data=_pixels)
tasks = {name: _pixels for name in _base_.tasks}
