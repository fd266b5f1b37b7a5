"""Seconds and accuracy against the number of rounds, for ``pxframe timing``: the PX paper's Table 2 on a small network.

The pre-trained ResNet-20 at 98.2 %, pruned with 1 to 200 rounds and fine-tuned for two epochs. Half an hour of a CPU
core for each seed.
"""

_base_ = ["../_base_/photographs.py"]

prune = dict(
    scorer=[dict(type="px"), dict(type="synflow_l2")],
    sparsity=0.982,
    controls=[],
)

tasks = dict(_delete_=True, cifar10=_base_._cifar_trained)
