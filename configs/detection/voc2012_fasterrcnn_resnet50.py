"""Faster R-CNN with a feature pyramid on ResNet-50, Pascal VOC 2012."""

_base_ = ["../_base_/detection_voc2012.py"]

tasks = dict(
    voc2012=dict(
        head=dict(type="FasterRCNN"),
        # the maps of strides 4, 8, 16 and 32; timm's first one is the stem's
        fpn=dict(maps=[1, 2, 3, 4], out_channels=256, extra="pool"),
        optimizer=dict(type="SGD", lr=0.02, momentum=0.9, weight_decay=1e-4),
    )
)
