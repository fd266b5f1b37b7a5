"""ProsPr (ICLR 2022): ResNet-18 on Tiny-ImageNet. The stride of 2 in the first convolution is a common choice."""

_base_ = ["../_base_/prospr.py"]

backbone = dict(type="resnet18", num_classes=200, stem_stride=2)

tasks = dict(tiny_imagenet=dict(**_base_._tiny_imagenet, **_base_._trained))
