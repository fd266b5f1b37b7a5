"""The data set of :func:`pxframe_tasks.demo.digits.write_scenes`: Pascal VOC's layout with the digits' classes."""

from pxframe_tasks.segmentation.openmmlab import import_mmseg

import_mmseg()

from mmseg.datasets import PascalVOCDataset  # noqa: E402 (mmseg first, with its warnings silenced)

from pxframe_tasks.demo.digits import SCENE_CLASSES  # noqa: E402


class DigitScenes(PascalVOCDataset):
    """``PascalVOCDataset`` itself; it takes no other classes than its own from a config, only from a subclass."""

    METAINFO = {"classes": SCENE_CLASSES, "palette": PascalVOCDataset.METAINFO["palette"][: len(SCENE_CLASSES)]}
