"""The tasks of ``short.py`` with three times the training, and the methods that its table and the rule ask for.

``docs/which-px.md`` has the rule for the default reading of PX. About eight hours of a CPU core.
"""

_base_ = ["../_base_/photographs.py"]

prune = dict(
    scorer=[
        *(dict(type="px", variant=name) for name in ("paper", "calibrated", "joint", "joint_calibrated")),
        dict(type="magnitude"),
        dict(type="cap"),
        dict(type="cap", rounds=5, refit=dict(type="obs", when="between")),
    ]
)

tasks = dict(cifar10=dict(epochs=6), tiny_imagenet=dict(epochs=12), camvid=dict(epochs=6))
