"""DeepLabV3+ (arXiv 1802.02611) on Pascal VOC 2012, the head as mmseg has it for ResNet-50."""

_base_ = ["voc.py"]

_deeplab = dict(
    type="DepthwiseSeparableASPPHead",
    channels=512,
    dilations=(1, 6, 12, 18),
    c1_channels=48,
    dropout_ratio=0.1,
    norm_cfg=dict(type="BN"),
    align_corners=False,
)

prune = dict(data=dict(head=_deeplab))
tasks = dict(voc=dict(head=_deeplab))
