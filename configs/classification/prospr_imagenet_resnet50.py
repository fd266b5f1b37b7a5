"""ProsPr (ICLR 2022): ResNet-50 on ImageNet at 90 and 95 %, with the first-order form, which needs less memory.

Drops after 30, 60 and 90 % of the epochs, as in the authors' program. Common choices, for want of published values: 90
epochs, a weight decay of 1e-4, and steps on 256 images.
"""

_base_ = ["../_base_/prospr.py"]

backbone = dict(type="timm", model="resnet50", num_classes=1000)

prune = dict(
    scorer=[dict(type="prospr", steps=3, order="first"), dict(type="snip"), dict(type="magnitude")],
    sparsity=[0.9, 0.95],
    samples=1024,
    batch_size=256,
)

tasks = dict(
    imagenet=dict(
        **_base_._imagenet,
        epochs=90,
        batch_size=256,
        optimizer=dict(type="SGD", lr=0.1, momentum=0.9, weight_decay=1e-4),
        schedule=[dict(type="MultiStepLR", milestones=[27, 54, 81], gamma=0.1)],
    )
)
