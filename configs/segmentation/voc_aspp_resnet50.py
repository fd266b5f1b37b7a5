"""DeepLabV3 (arXiv 1706.05587) on ResNet-50, the head (ASPP) as mmseg has it."""

_base_ = ["voc_deeplabv3plus_resnet50.py"]

tasks = dict(
    voc=dict(
        head=dict(
            _delete_=True,
            type="ASPPHead",
            channels=512,
            dilations=(1, 6, 12, 18),
            norm_cfg=dict(type="BN"),
            align_corners=False,
        )
    )
)
