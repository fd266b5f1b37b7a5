"""Pascal VOC 2012's boxes, trained on ``train`` and scored on ``val``, as torchvision's reference trains detectors.

That is 26 epochs of SGD, 16 images a step, the learning rate raised over the first 1000 steps and cut to a tenth after
epochs 16 and 22 (https://github.com/pytorch/vision/tree/main/references/detection). Batch norm is trained, too.
"""

_voc = dict(type="VOCBoxes", root="$PXFRAME_DATA/VOCdevkit/VOC2012")
_train = dict(
    **_voc,
    split="train",
    difficult=False,
    transform=[dict(type="torchvision.transforms.v2.RandomHorizontalFlip")],
)

backbone = dict(type="timm", model="resnet50.tv_in1k", pretrained=True)

# scored on the images themselves, smaller than in training: their boxes are not looked at
prune = dict(
    scorer=dict(type="px", rounds=100),
    sparsity=[0.9],
    samples=100,
    batch_size=20,
    data=dict(
        type="detection",
        data=dict(train=_train, test=dict(**_voc, split="val")),
        min_size=224,
        max_size=373,
        epochs=1,
    ),
)

tasks = dict(
    voc2012=dict(
        type="detection",
        data=dict(train=_train, test=dict(**_voc, split="val")),
        min_size=800,
        max_size=1333,
        epochs=26,
        batch_size=16,
        schedule=[
            dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=1000),
            dict(type="MultiStepLR", milestones=[16, 22], gamma=0.1, by_epoch=True),
        ],
        num_workers=8,
    ),
)
