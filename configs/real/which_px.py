"""Which reading of PX should be the default, and how do they stand beside other methods? From scratch, on CIFAR-10.

ResNet-20 from random weights, pruned at once on ten images a class (100 rounds for iterative methods), and trained on
CIFAR-10: 160 epochs, batch 128, SGD 0.1 with drops at 1/2 and 3/4, three seeds: for a GPU. The short form, which
a CPU can do in an hour for each seed, takes 20,000 of the images and five epochs:

    pxframe transfer configs/real/which_px.py --cfg-options prune.sparsity=0.982 tasks.cifar10.epochs=5 \
        tasks.cifar10.data.train.samples=20000 "tasks.cifar10.schedule.0.milestones=[3,4]" tasks.cifar10.num_workers=0

The data are looked for in the folder that PXFRAME_DATA names; zip files there are unpacked once.
"""

seed = [0, 1, 2]

backbone = dict(type="cifar_resnet", depth=20)

_folder = "torchvision.datasets.ImageFolder"
_cifar = dict(
    type="classification",
    data=dict(
        train=dict(
            type=_folder,
            root="$PXFRAME_DATA/cifar10-train/cifar10/train",
            transform=[
                dict(type="torchvision.transforms.v2.RandomCrop", size=32, padding=4),
                dict(type="torchvision.transforms.v2.RandomHorizontalFlip"),
            ],
        ),
        test=dict(type=_folder, root="$PXFRAME_DATA/cifar10-test/cifar10/test"),
    ),
    head=None,
    epochs=160,
    batch_size=128,
    optimizer=dict(type="SGD", lr=0.1, momentum=0.9, weight_decay=1e-4),
    schedule=[dict(type="MultiStepLR", milestones=[80, 120], gamma=0.1)],
    amp="bfloat16",
    num_workers=8,
)

prune = dict(
    scorer=[
        *(
            dict(type="px", variant=variant)
            for variant in ("paper", "calibrated", "joint", "joint_calibrated", "official")
        ),
        *("synflow_l2", "synflow", "snip", "grasp", "magnitude"),
        dict(type="ntk_sap", redraw=True),
    ],
    sparsity=[0.982, 0.9312],
    exclude=[],  # the classifier is pruned as well, as in the papers
    samples=100,
    data=_cifar,
)

tasks = dict(cifar10=_cifar)
