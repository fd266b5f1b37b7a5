"""PX (CVPR 2024): VGG-16 with batch norm on CIFAR-100 from random weights, trained as in the authors' program.

The number of epochs (160) is that of CIFAR-10; their program sets the drops, at 60 and 120.
"""

_base_ = ["../_base_/px.py"]

backbone = dict(type="vgg16_bn", num_classes=100)

prune = dict(samples=1000, batch_size=100)

tasks = dict(
    cifar100=dict(
        **_base_._cifar100,
        epochs=160,
        batch_size=128,
        optimizer=dict(type="SGD", lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4),
        schedule=[dict(type="MultiStepLR", milestones=[60, 120], gamma=0.1)],
    )
)
