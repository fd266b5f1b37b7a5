"""PX (CVPR 2024): ResNet-18 on Tiny-ImageNet from random weights, trained and augmented as in the authors' program.

The stride of 2 in the first convolution is a common choice for 64x64 pixels.
"""

_base_ = ["../_base_/px.py"]

backbone = dict(type="resnet18", num_classes=200, stem_stride=2)

prune = dict(samples=2000, batch_size=100)

tasks = dict(
    tiny_imagenet=dict(
        **_base_._tiny_imagenet,
        epochs=200,
        batch_size=256,
        optimizer=dict(type="SGD", lr=0.2, momentum=0.9, weight_decay=1e-4),
        schedule=[dict(type="MultiStepLR", milestones=[100, 150], gamma=0.1)],
    )
)
tasks["tiny_imagenet"]["data"]["train"]["transform"] = [
    dict(type="torchvision.transforms.v2.RandomResizedCrop", size=64, scale=(0.1, 1.0), ratio=(0.8, 1.25)),
    dict(type="torchvision.transforms.v2.RandomHorizontalFlip"),
]
