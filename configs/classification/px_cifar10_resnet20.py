"""PX (CVPR 2024): ResNet-20 on CIFAR-10 from random weights, trained as in the authors' program."""

_base_ = ["../_base_/px.py"]

backbone = dict(type="cifar_resnet", depth=20)

prune = dict(samples=100)

tasks = dict(
    cifar10=dict(
        **_base_._cifar10,
        epochs=160,
        batch_size=128,
        optimizer=dict(type="SGD", lr=0.1, momentum=0.9, weight_decay=1e-4),
        schedule=[dict(type="MultiStepLR", milestones=[80, 120], gamma=0.1)],
    )
)
