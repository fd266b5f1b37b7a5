"""ResNet-50 pre-trained without labels by MoCo v2 (the file of 800 epochs); see the base for the tasks.

The linear probe on ImageNet is MoCo's own: a rate of 30, no weight decay (He et al., CVPR 2020).
"""

_base_ = ["../_base_/pretrained_resnet50.py"]

backbone = dict(type="mocov2", checkpoint="$PXFRAME_DATA/moco_v2_800ep_pretrain.pth.tar")

tasks = dict(imagenet_probe=dict(optimizer=dict(lr=30.0)))
