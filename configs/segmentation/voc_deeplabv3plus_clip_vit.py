"""DeepLabV3+ on CLIP's ViT-B/16. Its maps are all of one resolution, a sixteenth; nothing is to be dilated."""

_base_ = ["../_base_/voc_clip.py"]

backbone = dict(type="open_clip", model="ViT-B-16", pretrained="openai")

_patches = dict(output_stride=None, size_divisor=16)

prune = dict(data=_patches)
tasks = dict(voc=_patches)
