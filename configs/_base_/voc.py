"""Segmentation of Pascal VOC 2012, with the settings of the PX paper (CVPR 2024); a config adds backbone and head.

The folder that PXFRAME_DATA names holds the devkit: ``VOCdevkit/VOC2012`` with JPEGImages, SegmentationClass and
ImageSets.

The ticket is found on the task's own training images, padded to one size in a batch. PX reads images alone, and so do
SynFlow, its kin, NTK-SAP, PHEW and magnitude. Methods that read labels (SNIP, GraSP, ProsPr) want images with a class
each: make ``prune.data`` a ``classification`` task on an ImageNet folder, or prune with ``whole=True``.
"""

_voc = dict(
    type="PascalVOCDataset",
    data_root="$PXFRAME_DATA/VOCdevkit/VOC2012",
    data_prefix=dict(img_path="JPEGImages", seg_map_path="SegmentationClass"),
)
_load = [dict(type="LoadImageFromFile"), dict(type="LoadAnnotations")]

_task = dict(
    type="segmentation",
    data=dict(
        train=dict(
            **_voc,
            ann_file="ImageSets/Segmentation/train.txt",
            pipeline=[
                *_load,
                # the longer side of VOC's images is 500 pixels: 0.5 to 2 times their own size
                dict(type="RandomResize", scale=(500, 500), ratio_range=(0.5, 2.0), keep_ratio=True),
                dict(type="RandomCrop", crop_size=(512, 512)),
                dict(type="RandomFlip", prob=0.5),
                dict(type="PackSegInputs"),
            ],
        ),
        test=dict(
            **_voc,
            ann_file="ImageSets/Segmentation/val.txt",
            pipeline=[*_load, dict(type="PackSegInputs")],
        ),
    ),
    out_indices=(-4, -3, -2, -1),
    output_stride=16,
    epochs=80,
    batch_size=16,
    optimizer=dict(type="SGD", lr=0.001, momentum=0.9, weight_decay=1e-4),
    head_lr_mult=10,
    schedule=[dict(type="MultiStepLR", milestones=[50, 60], gamma=0.1, by_epoch=True)],
    num_workers=8,
)

prune = dict(scorer=dict(type="px", rounds=100), sparsity=[0.9, 0.982], samples=100, batch_size=4, data=_task)
tasks = dict(voc=_task)
