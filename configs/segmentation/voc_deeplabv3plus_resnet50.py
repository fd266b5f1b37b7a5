"""DeepLabV3+ on ResNet-50, pre-trained on ImageNet with labels."""

_base_ = ["../_base_/voc_deeplabv3plus.py"]

backbone = dict(type="timm", model="resnet50.tv_in1k", pretrained=True)
