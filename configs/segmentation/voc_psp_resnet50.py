"""PSPNet (arXiv 1612.01105) on ResNet-50, the head as mmseg has it."""

_base_ = ["voc_deeplabv3plus_resnet50.py"]

tasks = dict(
    voc=dict(
        head=dict(
            _delete_=True,
            type="PSPHead",
            channels=512,
            pool_scales=(1, 2, 3, 6),
            norm_cfg=dict(type="BN"),
            align_corners=False,
        )
    )
)
