"""The main job in miniature, on real images: no network, no download, one to two minutes on two cores.

scikit-learn's handwritten digits (1797 scans, 8x8 pixels), drawn in colours on textured ground. A small ResNet is
trained on them and pruned once, by magnitude at 80 %. The ticket is fine-tuned on the digits with a new classifier, and
transferred to the segmentation of scenes with digits. Both trainings are short, so it matters how much of the
pre-training a ticket keeps.
"""

seed = 0
_data = "work_dirs/data"


def _one_cycle(rate, epochs):
    return [dict(type="OneCycleLR", eta_max=rate, total_steps=epochs, by_epoch=True, convert_to_iter_based=True)]


def _digits(rate, epochs):
    root = f"{_data}/digits"
    crop = dict(type="torchvision.transforms.v2.RandomCrop", size=24, padding=2)
    return dict(
        type="classification",
        prepare=dict(type="pxframe_tasks.demo.digits.write_folders", root=root, size=24, textured=True),
        data=dict(
            train=dict(type="torchvision.datasets.ImageFolder", root=f"{root}/train", transform=[crop]),
            test=dict(type="torchvision.datasets.ImageFolder", root=f"{root}/test"),
        ),
        batch_size=64,
        optimizer=dict(type="SGD", lr=rate, momentum=0.9, weight_decay=5e-4),
        epochs=epochs,
        schedule=_one_cycle(rate, epochs),
    )


def _scenes(root, listed):
    return dict(
        type="pxframe_tasks.demo.digit_scenes.DigitScenes",
        data_root=root,
        ann_file=f"ImageSets/Segmentation/{listed}.txt",
        data_prefix=dict(img_path="JPEGImages", seg_map_path="SegmentationClass"),
        pipeline=[dict(type="LoadImageFromFile"), dict(type="LoadAnnotations"), dict(type="PackSegInputs")],
    )


backbone = dict(type="cifar_resnet", depth=8, width=24)

pretrain = dict(**_digits(rate=0.1, epochs=10), head=None)

prune = dict(scorer="magnitude", sparsity=0.8, samples=100)

tasks = dict(
    digits=_digits(rate=0.02, epochs=3),
    scenes=dict(
        type="segmentation",
        prepare=dict(
            type="pxframe_tasks.demo.digits.write_scenes", root=f"{_data}/scenes", train=300, test=100, size=48
        ),
        data=dict(train=_scenes(f"{_data}/scenes", "train"), test=_scenes(f"{_data}/scenes", "val")),
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
        epochs=5,
        batch_size=4,
        test_batch_size=20,
        optimizer=dict(type="AdamW", lr=0.005, weight_decay=1e-4),
        schedule=_one_cycle(0.005, 5),
    ),
)
