"""Two of every four inputs, and one of four, on photographs: which weights a pattern keeps, and what a refit gives.

The tasks are those of ``photographs.py`` that take the least time. Half an hour of a CPU core for each seed.
"""

_base_ = ["../_base_/photographs.py"]

_methods = [
    dict(type="magnitude"),
    dict(type="wanda", scope="layer"),
    dict(type="wanda", scope="layer", relative=True),
    dict(type="sparsegpt"),
]

prune = dict(
    sparsity=None,  # the pattern's own
    scorer=[
        dict(granularity=pattern, **method, **refit)
        for pattern in ("2:4", "1:4")
        for method in _methods
        for refit in ({}, dict(refit="obs"))
    ],
)

tasks = dict(
    _delete_=True,
    cifar10=_base_._cifar_trained,
    cifar10_probe=dict(**_base_._cifar, head=_base_._ridge),
    tiny_imagenet_probe=dict(**_base_._tiny_imagenet, batch_size=128, head=_base_._ridge),
)
