"""DeepLabV3+ on ResNet-50, pre-trained on ImageNet without labels (MoCo v2, 800 epochs)."""

_base_ = ["../_base_/voc_deeplabv3plus.py"]

backbone = dict(type="mocov2", checkpoint="$PXFRAME_DATA/moco_v2_800ep_pretrain.pth.tar")
