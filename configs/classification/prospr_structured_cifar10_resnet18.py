"""ProsPr (ICLR 2022), section 4.3: whole channels of ResNet-18 on CIFAR-10, against 3SP (van Amersfoort et al., 2020).

3SP is SNIP with one mask entry a channel. The last layer's channels are the classes: it is left alone. The shares of
channels are a common choice.
"""

_base_ = ["prospr_cifar10_resnet18.py"]

prune = dict(
    scorer=[dict(type="prospr", steps=3), dict(type="snip"), dict(type="random")],
    sparsity=[0.5, 0.8, 0.9],
    granularity=dict(type="channel"),
    exclude=["head.*"],
)
