"""How weights that only make a factor are read, on a small transformer and real photographs: an hour of a CPU core.

Queries and keys carry no path. Methods that read paths either score them 0 (``factors="recorded"``), or give them their
share of what attention passes on (``"shared"``). A vision transformer is trained on 20,000 images of CIFAR-10, pruned
by both readings at three sparsities, and trained on for two epochs of 10,000 images. ``docs/reading.md`` has the table.
"""

seed = [0, 1, 2]

_folder = "torchvision.datasets.ImageFolder"
_crop = [
    dict(type="torchvision.transforms.v2.RandomCrop", size=32, padding=4),
    dict(type="torchvision.transforms.v2.RandomHorizontalFlip"),
]


def _cifar(samples, epochs, rate):
    return dict(
        type="classification",
        data=dict(
            train=dict(
                type=_folder, root="$PXFRAME_DATA/cifar10-train/cifar10/train", samples=samples, transform=_crop
            ),
            test=dict(type=_folder, root="$PXFRAME_DATA/cifar10-test/cifar10/test"),
        ),
        head=None,
        epochs=epochs,
        batch_size=64,
        optimizer=dict(type="AdamW", lr=rate, weight_decay=0.05),
        schedule=[dict(type="OneCycleLR", eta_max=rate, total_steps=epochs, by_epoch=True, convert_to_iter_based=True)],
    )


backbone = dict(
    type="timm",
    model="vit_tiny_patch16_224",
    img_size=32,
    patch_size=4,
    embed_dim=64,
    depth=4,
    num_heads=2,
    mlp_ratio=2,
    num_classes=10,
)

pretrain = _cifar(samples=20_000, epochs=10, rate=2e-3)

prune = dict(
    scorer=[
        dict(type="px", factors="recorded"),
        dict(type="px", factors="shared"),
        dict(type="synflow", factors="recorded"),
        dict(type="synflow", factors="shared"),
    ],
    sparsity=[0.5, 0.8, 0.9],
    samples=100,
)

tasks = dict(cifar10=_cifar(samples=10_000, epochs=2, rate=1e-3))
