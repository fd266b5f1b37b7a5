"""The comparison of ``slim.py`` on a VGG-16, whose layers can all lose channels; it is pre-trained first.

For a GPU: on one CPU core an epoch of pre-training alone takes about half an hour.

python tools/transfer.py configs/real/slim_vgg16.py --device cuda
"""

_base_ = ["slim.py"]

backbone = dict(_delete_=True, type="vgg16_bn", num_classes=10)

pretrain = dict(
    _base_._cifar_trained,
    data=dict(train=dict(_base_._cifar.data.train, samples=None), test=dict(_base_._cifar.data.test, samples=None)),
    epochs=60,
    optimizer=dict(type="SGD", lr=0.1, momentum=0.9, weight_decay=5e-4),
    num_workers=8,
)
