"""PX (CVPR 2024): ResNet-50 on ImageNet from random weights, trained and augmented as in the authors' program."""

_base_ = ["../_base_/px.py"]

backbone = dict(type="timm", model="resnet50", num_classes=1000)

prune = dict(samples=10000, batch_size=100)

tasks = dict(
    imagenet=dict(
        **_base_._imagenet,
        epochs=90,
        batch_size=448,
        optimizer=dict(type="SGD", lr=0.1, momentum=0.9, weight_decay=1e-4),
        schedule=[dict(type="MultiStepLR", milestones=[30, 60, 80], gamma=0.1)],
    )
)
tasks["imagenet"]["data"]["train"]["transform"] = [
    dict(type="torchvision.transforms.v2.RandomResizedCrop", size=224, scale=(0.2, 1.0)),
    dict(type="torchvision.transforms.v2.RandomGrayscale", p=0.2),
    dict(type="torchvision.transforms.v2.ColorJitter", brightness=0.4, contrast=0.4, saturation=0.4, hue=0.4),
    dict(type="torchvision.transforms.v2.RandomHorizontalFlip"),
]
