"""ProsPr (Alizadeh et al., ICLR 2022) beside single-shot methods, and how its authors' program trains.

Three steps on batches of 512 images each, and a fourth batch for the loss after them, from random weights. The levels
of sparsity are those of the PX paper, so that both can be laid side by side.
"""

_base_ = ["px.py"]

_trained = dict(
    epochs=200,
    batch_size=256,
    optimizer=dict(type="SGD", lr=0.1, momentum=0.9, weight_decay=5e-4),
    schedule=[dict(type="MultiStepLR", milestones=[100, 150], gamma=0.1)],
)

prune = dict(
    scorer=[
        dict(type="prospr", steps=3),
        dict(type="grasp"),
        dict(type="snip"),
        dict(type="synflow", rounds=100),
        dict(type="magnitude"),
        dict(type="random"),
    ],
    samples=2048,
    batch_size=512,
)
