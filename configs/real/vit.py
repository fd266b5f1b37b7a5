"""Which method on a vision transformer? The small one of ``attention.py``, trained on CIFAR-10, pruned and fine-tuned.

Two hours of a CPU core for each seed.
"""

_base_ = ["attention.py"]

_between = dict(type="obs", when="between")

prune = dict(
    samples=250,
    scorer=[
        dict(type="px"),
        dict(type="px", variant="joint"),
        dict(type="ntk_trace"),
        dict(type="magnitude"),
        dict(type="lamp"),
        dict(type="wanda", scope="layer"),
        dict(type="sparsegpt"),
        dict(type="fisher"),
        dict(type="cap"),
        *(dict(type=name, refit="obs") for name in ("px", "magnitude", "lamp", "sparsegpt", "cap")),
        dict(type="wanda", scope="layer", refit="obs"),
        dict(type="cap", rounds=5, refit=_between),
    ],
)
