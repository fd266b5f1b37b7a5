"""ProsPr (ICLR 2022): ResNet-18 on CIFAR-100."""

_base_ = ["../_base_/prospr.py"]

backbone = dict(type="resnet18", num_classes=100)

tasks = dict(cifar100=dict(**_base_._cifar100, **_base_._trained))
