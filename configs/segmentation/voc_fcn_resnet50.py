"""FCN (arXiv 1411.4038) on ResNet-50, the head as mmseg has it."""

_base_ = ["voc_deeplabv3plus_resnet50.py"]

tasks = dict(
    voc=dict(
        head=dict(
            _delete_=True,
            type="FCNHead",
            channels=512,
            num_convs=2,
            concat_input=True,
            norm_cfg=dict(type="BN"),
            align_corners=False,
        )
    )
)
