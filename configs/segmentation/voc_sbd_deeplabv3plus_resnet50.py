"""DeepLabV3+ on ResNet-50, trained on the 10582 images that Pascal VOC 2012 and SBD have together.

``SegmentationClassAug`` has the labels of all of them. Where it has SBD's alone (as mmseg's
``tools/dataset_converters/voc_aug.py`` leaves it), two lists in one do: ``dict(type="ConcatDataset", datasets=[...])``
of ``train.txt`` with ``SegmentationClass`` and ``aug.txt`` with ``SegmentationClassAug``.
"""

_base_ = ["voc_deeplabv3plus_resnet50.py"]

_sbd = dict(
    ann_file="ImageSets/Segmentation/trainaug.txt",
    data_prefix=dict(seg_map_path="SegmentationClassAug"),
)

tasks = dict(voc=dict(data=dict(train=_sbd)))
