"""Channels taken out of a pre-trained ResNet-20 and trained on, at equal multiply-accumulates and at equal time.

The score of a group of channels is that of one entry that stands on all of them. ``snip`` so is 3SP (compute-aware);
"reinit" and "rescale" are its two ways to start. Torch-Pruning's own importances stand beside ours. The layers of this
network's residual streams cannot lose channels (their shortcuts are padded), so all methods choose among the inner
channels of its blocks. About two hours of a CPU core for each seed; ``slim_vgg16.py`` has a network without shortcuts.
"""

_base_ = ["../_base_/photographs.py"]

slim = True
_sum, _entry = (dict(type="channel", groups=groups) for groups in ("mean", "entry"))
_aware = dict(type="channel", groups="entry", compute_aware=True)
_prospr = dict(type="prospr", granularity=_entry)
_3sp = dict(type="snip", granularity=_aware)

prune = dict(
    sparsity=None,
    flops=[0.7, 0.5, 0.3],
    latency=[0.8],
    granularity=_sum,
    refit="bn",
    scorer=[
        dict(type="magnitude"),
        _prospr,
        _3sp,
        dict(_3sp, refit="reinit"),
        dict(_3sp, refit="rescale"),
        dict(type="taylor", granularity=_entry),
        dict(type="torch_pruning", importance="magnitude", granularity=_entry),
        dict(type="torch_pruning", importance="taylor", granularity=_entry),
    ],
)

tasks = dict(_delete_=True, cifar10=dict(_base_._cifar_trained, epochs=3))
