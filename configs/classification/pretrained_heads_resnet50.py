"""Heads on a frozen, pre-trained ResNet-50 that need no schedule: what its features, pruned or not, are worth.

Ridge regression with its weight chosen by leaving one out, and votes of 20 neighbours: one pass over each training set.
The authors of PX fit a ridge head on test images; here the training images alone are used.
"""

_base_ = ["pretrained_timm_resnet50.py"]

_ridge = dict(head=dict(type="Ridge", alpha=[1.0, 10.0, 100.0, 1000.0]))
_knn = dict(head=dict(type="KNN", k=20))

tasks = dict(
    _delete_=True,
    cifar10_ridge=dict(**_base_._cifar10_224, **_ridge),
    cifar100_ridge=dict(**_base_._cifar100_224, **_ridge),
    tiny_imagenet_ridge=dict(**_base_._tiny_imagenet_224, **_ridge),
    cifar10_knn=dict(**_base_._cifar10_224, **_knn),
    cifar100_knn=dict(**_base_._cifar100_224, **_knn),
    tiny_imagenet_knn=dict(**_base_._tiny_imagenet_224, **_knn),
)
