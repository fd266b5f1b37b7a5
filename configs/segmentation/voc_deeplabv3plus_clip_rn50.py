"""DeepLabV3+ on CLIP's ResNet-50."""

_base_ = ["../_base_/voc_clip.py"]

backbone = dict(type="open_clip", model="RN50", pretrained="openai")
