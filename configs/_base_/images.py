"""The data sets of the papers on classification, as tasks without a schedule; a config says how long to train.

The folder that PXFRAME_DATA names holds ``cifar-10/cifar-10-batches-py``, ``cifar-100/cifar-100-python``,
``tiny-imagenet-200/{train,val}/CLASS`` (the images of ``val`` sorted into folders of their class) and
``imagenet/{train,val}/CLASS``.

Augmentation as in the authors' programs of ProsPr (ICLR 2022). That of PX (CVPR 2024) is the same for CIFAR; its other
crops are in ``px_tiny_imagenet_resnet18.py`` and ``px_imagenet_resnet50.py``. Names that end in ``_224`` are for
networks that were trained on ImageNet.
"""

_T = "torchvision.transforms.v2"
_flip = dict(type=f"{_T}.RandomHorizontalFlip")
_up = dict(type=f"{_T}.Resize", size=(224, 224))
_crop_224 = dict(type=f"{_T}.RandomCrop", size=224, padding=4)


def _task(dataset, train, test, **pixels):
    if dataset.startswith("CIFAR"):
        common = dict(type=f"torchvision.datasets.{dataset}", root=f"$PXFRAME_DATA/{dataset.lower()[:5]}-{dataset[5:]}")
        splits = [dict(common, train=True), dict(common, train=False)]
    else:
        common = dict(type="torchvision.datasets.ImageFolder")
        splits = [dict(common, root=f"$PXFRAME_DATA/{dataset}/{part}") for part in ("train", "val")]
    data = dict(train=dict(splits[0], transform=train), test=dict(splits[1], transform=test))
    return dict(type="classification", data=data, num_workers=4, **pixels)


_small = [dict(type=f"{_T}.RandomCrop", size=32, padding=4), _flip]
_cifar10 = _task("CIFAR10", _small, [], mean=(125.3, 123.0, 113.9), std=(51.6, 50.8, 51.3))
_cifar100 = _task("CIFAR100", _small, [], mean=(129.3, 124.1, 112.4), std=(68.2, 65.4, 70.4))
_tiny_imagenet = _task(
    "tiny-imagenet-200",
    [dict(type=f"{_T}.RandomCrop", size=64, padding=4), _flip],
    [],
    mean=(122.5, 114.3, 101.4),
    std=(70.6, 68.6, 71.9),
)
_imagenet = _task(
    "imagenet",
    [dict(type=f"{_T}.RandomResizedCrop", size=224), _flip],
    [dict(type=f"{_T}.Resize", size=256), dict(type=f"{_T}.CenterCrop", size=224)],
)

_cifar10_224 = _task("CIFAR10", [_up, _crop_224, _flip], [_up])
_cifar100_224 = _task("CIFAR100", [_up, _crop_224, _flip], [_up])
_tiny_imagenet_224 = _task("tiny-imagenet-200", [_up, _crop_224, _flip], [_up])
