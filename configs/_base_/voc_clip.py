"""DeepLabV3+ on Pascal VOC 2012 for CLIP's image towers, which have a mean and deviation of pixels of their own."""

_base_ = ["voc_deeplabv3plus.py"]

_pixels = dict(mean=(122.7709383, 116.7460125, 104.09373615), std=(68.5005327, 66.6321375, 70.3231695))

prune = dict(data=_pixels)
tasks = dict(voc=_pixels)
