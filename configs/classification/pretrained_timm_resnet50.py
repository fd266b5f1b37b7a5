"""ResNet-50 with torchvision's supervised weights for ImageNet, by timm; see the base for the tasks.

It has a classifier, so methods that read labels take part.
"""

_base_ = ["../_base_/pretrained_resnet50.py"]

backbone = dict(type="timm", model="resnet50.tv_in1k", pretrained=True)

prune = dict(
    scorer=[
        *_base_.prune.scorer,
        dict(type="snip"),
        dict(type="grasp"),
        dict(type="prospr"),
    ]
)
