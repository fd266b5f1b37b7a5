"""The same as ``short.py`` at full length, for a GPU: all of CIFAR-10, images at their own size, long schedules.

python tools/transfer.py configs/real/full.py --device cuda --tasks cifar10 tiny_imagenet camvid
"""

_base_ = ["short.py"]

_augmented = [
    dict(type="torchvision.transforms.v2.RandomCrop", size=64, padding=8),
    dict(type="torchvision.transforms.v2.RandomHorizontalFlip"),
]

tasks = dict(
    cifar10=dict(data=dict(train=dict(samples=None), test=dict(samples=None)), epochs=40, num_workers=8),
    tiny_imagenet=dict(
        data=dict(train=dict(transform=_augmented), test=dict(transform=[])),
        epochs=100,
        num_workers=8,
    ),
    camvid=dict(
        data=dict(
            train=dict(
                pipeline=[
                    dict(type="LoadImageFromFile"),
                    dict(type="LoadAnnotations"),
                    dict(type="RandomResize", scale=(480, 360), ratio_range=(0.5, 2.0), keep_ratio=True),
                    dict(type="RandomCrop", crop_size=(240, 320), cat_max_ratio=0.75, ignore_index=11),
                    dict(type="RandomFlip", prob=0.5),
                    dict(type="PhotoMetricDistortion"),
                    dict(type="PackSegInputs"),
                ]
            ),
            test=dict(
                pipeline=[
                    dict(type="LoadImageFromFile"),
                    dict(type="LoadAnnotations"),
                    dict(type="PackSegInputs"),
                ]
            ),
        ),
        head=dict(dilations=(1, 6, 12, 18)),
        epochs=150,
        num_workers=8,
    ),
)
