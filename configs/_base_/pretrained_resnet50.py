"""Pre-trained ResNet-50s, pruned once and transferred (the PX paper, CVPR 2024); a config adds the backbone.

The ticket is found on 1000 images of ImageNet, one a class, of which these methods read no labels: not every one of the
networks has a classifier. ``--tasks`` chooses: fine-tuning (CIFAR-10, CIFAR-100 and Tiny-ImageNet at 224x224) with the
schedule of the authors' program, or a linear probe.

Common choices, for want of published values: the probe's 100 epochs, drops at 60 and 80 and rate of 0.1; for
Tiny-ImageNet, shifts by up to 4 pixels as for CIFAR.
"""

_base_ = ["px.py"]

_fine_tuned = dict(
    epochs=182,
    batch_size=256,
    optimizer=dict(type="SGD", lr=0.1, momentum=0.9, weight_decay=1e-4),
    schedule=[dict(type="MultiStepLR", milestones=[91, 136], gamma=0.1)],
)
_probed = dict(
    frozen=True,
    epochs=100,
    batch_size=256,
    optimizer=dict(type="SGD", lr=0.1, momentum=0.9, weight_decay=0.0),
    schedule=[dict(type="MultiStepLR", milestones=[60, 80], gamma=0.1)],
)

prune = dict(
    whole=False,
    scorer=[
        dict(type="px", rounds=100),
        dict(type="ntk_sap", rounds=100),
        dict(type="synflow_l2", rounds=100),
        dict(type="synflow", rounds=100),
        dict(type="magnitude"),
        dict(type="random"),
    ],
    samples=1000,
    batch_size=100,
    data=_base_._imagenet,
)

tasks = dict(
    cifar10=dict(**_base_._cifar10_224, **_fine_tuned),
    cifar100=dict(**_base_._cifar100_224, **_fine_tuned),
    tiny_imagenet=dict(**_base_._tiny_imagenet_224, **_fine_tuned),
    cifar10_probe=dict(**_base_._cifar10_224, **_probed),
    cifar100_probe=dict(**_base_._cifar100_224, **_probed),
    tiny_imagenet_probe=dict(**_base_._tiny_imagenet_224, **_probed),
    imagenet_probe=dict(**_base_._imagenet, **_probed),
)
