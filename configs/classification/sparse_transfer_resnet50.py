"""How sparse ImageNet networks are fine-tuned by Iofinova et al. (CVPR 2022, arXiv 2111.13445).

A protocol beside the PX paper's (``pretrained_timm_resnet50.py``: 182 epochs at a rate of 0.1, nearly a training from
random weights): 150 epochs at 0.001, drops at 50 and 100, batches of 64, weight decay 5e-4, masks fixed. Their networks
were sparsified with much training on ImageNet. Here a ticket is found on 1000 of its images.
"""

_base_ = ["pretrained_timm_resnet50.py"]

_fine_tuned = dict(
    epochs=150,
    batch_size=64,
    optimizer=dict(type="SGD", lr=0.001, momentum=0.9, weight_decay=5e-4),
    schedule=[dict(type="MultiStepLR", milestones=[50, 100], gamma=0.1)],
)

prune = dict(
    scorer=[
        dict(type="magnitude"),
        dict(type="lamp"),
        dict(type="cap", gradients=16),
        dict(type="cap", gradients=16, rounds=5, refit=dict(type="obs", when="between")),
        dict(type="px", rounds=100),
    ],
    sparsity=[0.8, 0.9, 0.95],
)

tasks = dict(cifar10=_fine_tuned, cifar100=_fine_tuned, tiny_imagenet=_fine_tuned)
