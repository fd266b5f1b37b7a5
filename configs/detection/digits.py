"""Detection in miniature, on real images: no network, no download, a few minutes on a CPU.

scikit-learn's handwritten digits (1797 scans, 8x8 pixels). A small ResNet is trained to tell digits apart, pruned once
with PX at 90 %, and transferred to finding the digits in scenes composed of them: Faster R-CNN on a feature pyramid.
"""

seed = 0
_data = "work_dirs/data"
_digits = f"{_data}/digits-32"
_scenes = f"{_data}/digit-boxes"
_boxes = dict(
    type="VOCBoxes",
    root=_scenes,
    classes=["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"],
)

backbone = dict(type="cifar_resnet", depth=8, width=16)

pretrain = dict(
    type="classification",
    prepare=dict(type="pxframe_tasks.demo.digits.write_folders", root=_digits, size=32, textured=True),
    data=dict(
        train=dict(
            type="torchvision.datasets.ImageFolder",
            root=f"{_digits}/train",
            transform=[dict(type="torchvision.transforms.v2.RandomCrop", size=32, padding=2)],
        ),
        test=dict(type="torchvision.datasets.ImageFolder", root=f"{_digits}/test"),
    ),
    head=None,
    epochs=10,
    batch_size=64,
    optimizer=dict(type="SGD", lr=0.1, momentum=0.9, weight_decay=5e-4),
)

prune = dict(scorer=dict(type="px", rounds=100), sparsity=0.9, samples=100)

tasks = dict(
    boxes=dict(
        type="detection",
        prepare=dict(type="pxframe_tasks.demo.digits.write_scenes", root=_scenes, train=300, test=100, size=64),
        data=dict(train=dict(**_boxes, split="train"), test=dict(**_boxes, split="val")),
        min_size=64,
        max_size=64,
        fpn=dict(maps=[1, 2], out_channels=32),
        anchors=dict(sizes=[[12], [20], [32]], aspect_ratios=[[0.5, 1.0, 2.0]] * 3),
        head=dict(
            type="FasterRCNN",
            rpn_pre_nms_top_n_train=200,
            rpn_post_nms_top_n_train=100,
            rpn_pre_nms_top_n_test=200,
            rpn_post_nms_top_n_test=50,
            rpn_batch_size_per_image=64,
            box_batch_size_per_image=32,
        ),
        epochs=4,
        batch_size=8,
        optimizer=dict(type="AdamW", lr=0.002, weight_decay=1e-4),
        schedule=[dict(type="OneCycleLR", eta_max=0.002, total_steps=4, by_epoch=True, convert_to_iter_based=True)],
    ),
)
