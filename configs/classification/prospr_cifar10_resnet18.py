"""ProsPr (ICLR 2022): ResNet-18 on CIFAR-10."""

_base_ = ["../_base_/prospr.py"]

backbone = dict(type="resnet18")

tasks = dict(cifar10=dict(**_base_._cifar10, **_base_._trained))
