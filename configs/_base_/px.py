"""The methods and levels of sparsity of the PX paper (Iurada et al., CVPR 2024), from random weights.

Pruned is the whole model, its last layer included, on ten training images a class. 100 rounds for what is iterative,
one for the rest.
"""

_base_ = ["images.py"]

_levels = [0.36, 0.5904, 0.738, 0.8322, 0.893, 0.9312, 0.956, 0.9717, 0.982]

seed = [0, 1, 2]

prune = dict(
    whole=True,
    scorer=[
        dict(type="px", rounds=100),
        dict(type="ntk_sap", rounds=100, redraw=True),
        dict(type="synflow_l2", rounds=100),
        dict(type="synflow", rounds=100),
        dict(type="grasp"),
        dict(type="snip"),
        dict(type="magnitude"),
        dict(type="random"),
    ],
    sparsity=_levels,
)
