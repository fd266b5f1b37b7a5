"""What pruning does to a network of the paper's kind, for ``pxframe spectrum`` and ``pxframe width``.

ResNet-20 and CIFAR-10, at the PX paper's levels of sparsity: the network trained on CIFAR-10, or with
``--cfg-options backbone.checkpoint=None`` one with random weights. The classifier is pruned as well, as in the paper.
Ten minutes of a CPU core for each seed.
"""

_base_ = ["../_base_/photographs.py"]

prune = dict(
    scorer=[
        dict(type="px"),
        dict(type="px", variant="joint"),
        dict(type="synflow_l2"),
        dict(type="snip"),
        dict(type="magnitude"),
        dict(type="ntk_trace"),
    ],
    sparsity=[0.9312, 0.982],
    exclude=[],
    samples=100,
)
