r"""The comparison of ``slim.py`` on a VGG-16, whose layers can all lose channels; it is pre-trained first.

A quarter as wide as usual, which a CPU can do: two hours of a core for each seed. At full width, an epoch of
pre-training alone takes half an hour of a core; on a GPU:

    pxframe transfer configs/real/slim_vgg16.py --device cuda \
        --cfg-options backbone.width=64 pretrain.epochs=60 pretrain.num_workers=8
"""

_base_ = ["slim.py"]

backbone = dict(_delete_=True, type="vgg16_bn", num_classes=10, width=16)

pretrain = dict(
    _base_._cifar_trained,
    data=dict(train=dict(_base_._cifar.data.train, samples=None), test=dict(_base_._cifar.data.test, samples=None)),
    epochs=12,
    optimizer=dict(type="SGD", lr=0.1, momentum=0.9, weight_decay=5e-4),
)
