"""Every method, with and without a refit, on photographs: little training.

``photographs.py`` has the tasks. Beside fine-tuning for two epochs there are probes (the backbone frozen) and, for
CIFAR-10, the accuracy without any training. PX's Eq. 9 (``px``) stands for SynFlow-L2 too: with the classifier left out
their tickets are equal. Three seeds are about twelve hours of a CPU core; the ones below can run side by side, in work
folders of their own, with ``--cfg-options seed=1 work_dir=...``.
"""

_base_ = ["../_base_/photographs.py"]

_methods = [
    *(dict(type="px", variant=name) for name in ("paper", "calibrated", "joint", "joint_calibrated", "official")),
    dict(type="ntk_trace"),
    dict(type="magnitude"),
    dict(type="lamp"),
    dict(type="wanda", distribution="erk"),
    dict(type="fisher"),
    dict(type="cap"),
]

prune = dict(
    scorer=[
        *_methods,
        *(dict(refit="obs", **method) for method in _methods),
        # the next round scores the network that a refit has repaired; training starts from the dense weights
        *(
            dict(type=name, rounds=5, refit=dict(type="obs", when="between"))
            for name in ("cap", "magnitude", "fisher", "px")
        ),
        dict(type="ntk_trace", rounds=5, refit=dict(type="bn", when="between")),
    ]
)
