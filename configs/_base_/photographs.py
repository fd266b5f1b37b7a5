"""Real photographs and a real pre-trained network: the tasks of ``configs/real``, each with two ways to use a ticket.

ResNet-20, trained on CIFAR-10, is pruned on 250 of its training images and transferred to CIFAR-10 itself (10,000 of
the training images, with its own classifier), to Tiny-ImageNet (a subset: 200 classes, 50 training images each, here at
32x32) and to CamVid (11 classes of street scenes, here at 160x120). Each is there twice: fine-tuned, and as ``*_probe``
with the backbone frozen and a new head: ridge regression for classes, the same segmentation head for scenes.

The data and the network's file are looked for in the folder that PXFRAME_DATA names; zip files there are unpacked once.
"""

seed = [0, 1, 2]

backbone = dict(type="cifar_resnet", depth=20, checkpoint="$PXFRAME_DATA/resnet20-12fca82f.th")

_folder = "torchvision.datasets.ImageFolder"
_crop = [
    dict(type="torchvision.transforms.v2.RandomCrop", size=32, padding=4),
    dict(type="torchvision.transforms.v2.RandomHorizontalFlip"),
]
_sgd = dict(type="SGD", momentum=0.9, weight_decay=5e-4)
_cifar = dict(
    type="classification",
    data=dict(
        train=dict(type=_folder, root="$PXFRAME_DATA/cifar10-train/cifar10/train", samples=10_000, transform=_crop),
        test=dict(type=_folder, root="$PXFRAME_DATA/cifar10-test/cifar10/test", samples=5000),
    ),
)
_mixed = dict(batch_size=128, amp="bfloat16")
_cifar_trained = dict(
    **_cifar,
    **_mixed,
    head=None,  # its own classifier was trained for these classes
    epochs=2,
    optimizer=dict(lr=0.04, **_sgd),
)
_ridge = dict(type="Ridge", alpha=[0.1, 1.0, 10.0, 100.0, 1000.0])

prune = dict(sparsity=[0.9, 0.982], samples=250, mode="eval", data=_cifar_trained)

_tiny = "$PXFRAME_DATA/tiny-imagenet-subset/tiny-imagenet"
_camvid = dict(
    type="BaseSegDataset",
    data_root="$PXFRAME_DATA/camvid/camvid",
    metainfo=dict(
        classes=[
            *("sky", "building", "pole", "road", "pavement", "tree", "sign symbol", "fence", "car", "pedestrian"),
            "bicyclist",
        ]
    ),
)

_tiny_imagenet = dict(
    type="classification",
    data=dict(
        train=dict(
            type=_folder,
            root=f"{_tiny}/train",
            transform=[dict(type="torchvision.transforms.v2.Resize", size=32), *_crop],
        ),
        test=dict(
            type=_folder,
            root=f"{_tiny}/val",
            transform=[dict(type="torchvision.transforms.v2.Resize", size=32)],
        ),
    ),
)
_scenes = dict(
    type="segmentation",
    data=dict(
        train=dict(
            **_camvid,
            data_prefix=dict(img_path="img_dir/train", seg_map_path="ann_dir/train"),
            pipeline=[
                dict(type="LoadImageFromFile"),
                dict(type="LoadAnnotations"),
                dict(type="RandomResize", scale=(160, 120), ratio_range=(0.75, 1.5), keep_ratio=True),
                dict(type="RandomCrop", crop_size=(96, 128), cat_max_ratio=0.75, ignore_index=11),
                dict(type="RandomFlip", prob=0.5),
                dict(type="PackSegInputs"),
            ],
        ),
        test=dict(
            **_camvid,
            data_prefix=dict(img_path="img_dir/test", seg_map_path="ann_dir/test"),
            pipeline=[
                dict(type="LoadImageFromFile"),
                dict(type="Resize", scale=(160, 120), keep_ratio=True),
                dict(type="LoadAnnotations"),  # the score is taken at full resolution
                dict(type="PackSegInputs"),
            ],
        ),
    ),
    ignore_index=11,
    head=dict(
        type="DepthwiseSeparableASPPHead",
        in_index=2,
        channels=64,
        dilations=(1, 3, 6, 9),
        c1_channels=16,
        dropout_ratio=0.1,
        init_cfg=None,  # mmseg's default starts the last layer near zero, which costs a short run many epochs
        norm_cfg=dict(type="BN"),
        align_corners=False,
    ),
    epochs=2,
    batch_size=8,
    test_batch_size=8,
    optimizer=dict(type="AdamW", lr=0.003, weight_decay=1e-4),
)

tasks = dict(
    cifar10=_cifar_trained,
    cifar10_probe=dict(**_cifar, head=_ridge),
    tiny_imagenet=dict(**_tiny_imagenet, **_mixed, epochs=4, optimizer=dict(lr=0.1, **_sgd)),
    tiny_imagenet_probe=dict(**_tiny_imagenet, batch_size=128, head=_ridge),
    camvid=_scenes,
    camvid_probe=dict(**_scenes, frozen=True),
)
