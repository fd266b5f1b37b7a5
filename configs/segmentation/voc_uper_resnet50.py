"""UPerNet (arXiv 1807.10221) on ResNet-50, the head as mmseg has it; it wants the backbone's own strides."""

_base_ = ["voc_deeplabv3plus_resnet50.py"]

tasks = dict(
    voc=dict(
        output_stride=None,
        head=dict(
            _delete_=True,
            type="UPerHead",
            in_index=[0, 1, 2, 3],
            channels=512,
            pool_scales=(1, 2, 3, 6),
            norm_cfg=dict(type="BN"),
            align_corners=False,
        ),
    )
)
