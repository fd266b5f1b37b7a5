"""The main job in miniature, on real images: no network, no download, a few minutes on a CPU.

scikit-learn's handwritten digits (1797 scans, 8x8 pixels). A small ResNet is trained on the digits 0 to 4, pruned once
with PX at 90 %, and transferred to all ten digits and to the segmentation of scenes composed from digits.
"""

seed = 0
_data = "work_dirs/data"


def _one_cycle(rate, epochs):
    return [dict(type="OneCycleLR", eta_max=rate, total_steps=epochs, by_epoch=True, convert_to_iter_based=True)]


def _digits(root, **options):
    crop = dict(type="torchvision.transforms.v2.RandomCrop", size=24, padding=2)
    return dict(
        type="classification",
        prepare=dict(type="pxframe_tasks.demo.digits.write_folders", root=root, size=24, textured=True, **options),
        data=dict(
            train=dict(type="torchvision.datasets.ImageFolder", root=f"{root}/train", transform=[crop]),
            test=dict(type="torchvision.datasets.ImageFolder", root=f"{root}/test"),
        ),
        batch_size=64,
        optimizer=dict(type="SGD", lr=0.1, momentum=0.9, weight_decay=5e-4),
    )


backbone = dict(type="cifar_resnet", depth=8, width=32, num_classes=5)

pretrain = dict(**_digits(f"{_data}/digits-0-4", classes=[0, 1, 2, 3, 4]), head=None, epochs=12)

prune = dict(scorer=dict(type="px", rounds=100), sparsity=0.9, samples=100)

_scenes = dict(type="pxframe_tasks.demo.digit_scenes.DigitScenes", data_root=f"{_data}/scenes")
_files = dict(img_path="JPEGImages", seg_map_path="SegmentationClass")

tasks = dict(
    digits=dict(**_digits(f"{_data}/digits"), epochs=10, schedule=_one_cycle(0.1, 10)),
    scenes=dict(
        type="segmentation",
        prepare=dict(
            type="pxframe_tasks.demo.digits.write_scenes", root=f"{_data}/scenes", train=400, test=100, size=48
        ),
        data=dict(
            train=dict(
                **_scenes,
                ann_file="ImageSets/Segmentation/train.txt",
                data_prefix=_files,
                pipeline=[
                    dict(type="LoadImageFromFile"),
                    dict(type="LoadAnnotations"),
                    dict(type="PackSegInputs"),
                ],
            ),
            test=dict(
                **_scenes,
                ann_file="ImageSets/Segmentation/val.txt",
                data_prefix=_files,
                pipeline=[
                    dict(type="LoadImageFromFile"),
                    dict(type="LoadAnnotations"),
                    dict(type="PackSegInputs"),
                ],
            ),
        ),
        head=dict(
            type="DepthwiseSeparableASPPHead",
            in_index=2,
            channels=32,
            dilations=(1, 2, 4),
            c1_channels=16,
            dropout_ratio=0.0,
            init_cfg=None,  # mmseg's default starts the last layer near zero, which costs a short run many epochs
            norm_cfg=dict(type="BN"),
            align_corners=False,
        ),
        epochs=12,
        batch_size=4,
        test_batch_size=20,
        optimizer=dict(type="AdamW", lr=0.006, weight_decay=1e-4),
        schedule=_one_cycle(0.006, 12),
    ),
)
