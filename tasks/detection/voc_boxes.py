"""Boxes in Pascal VOC's layout as a data set: ``JPEGImages``, ``Annotations`` and ``ImageSets/Main``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import torch
from mmengine.registry import DATASETS, TRANSFORMS, Registry
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms.v2 import Compose
from torchvision.transforms.v2 import functional as F

from pxframe.base.errors import PxframeError, near, some
from pxframe.images.dataset import as_rgb, check_bytes

BOXES = Registry("boxes", parent=DATASETS, scope="pxframe")

VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)


@dataclass(frozen=True)
class Objects:
    """The objects of an annotation: boxes ``[M, 4]``, labels ``[M]``, and bool ``[M]``, true where difficult."""

    boxes: Tensor
    labels: Tensor
    difficult: Tensor


@BOXES.register_module()
class VOCBoxes(Dataset):
    """Images, and the boxes of the objects in them.

    An item is a dict of ``inputs``, uint8 RGB ``[3, H, W]``, and ``data_samples``, a dict of

    - ``boxes``: float32 ``[M, 4]``: left, top, right and bottom edge in pixels, after the transforms. The files count
      pixels from 1 and name the last pixel inside, so 1 is subtracted from the left and the top edge;
    - ``labels``: int64 ``[M]``, 1 for the first class; 0 is the background;
    - ``iscrowd``: bool ``[M]``, true for objects marked difficult. The metric ignores them, as Pascal VOC's does:
      neither finding nor missing one counts.

    Boxes are cut at the edges of the image. A box that a crop leaves narrower or lower than a pixel is dropped.

    Args:
        root: the folder, e.g. ``VOCdevkit/VOC2012``.
        split: name of the list in ``ImageSets/Main``, e.g. ``"train"``.
        classes: names of the classes; default: Pascal VOC's twenty.
        difficult: whether objects marked difficult are among the boxes.
        transform: configs of ``torchvision.transforms.v2``, applied in their order, to the boxes as well. Images must
            stay uint8.

    Raises:
        PxframeError: a file is missing, or an annotation cannot be used. All annotations are read here.
    """

    def __init__(
        self,
        root: str | Path,
        split: str,
        classes: Sequence[str] = VOC_CLASSES,
        difficult: bool = True,
        transform: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        self.root = Path(root)
        self.classes = tuple(classes)
        self.difficult = difficult
        self.metainfo = {"classes": self.classes}
        self.transform = Compose([TRANSFORMS.build(dict(t)) for t in transform]) if transform else None
        self.names = self._listed(split)
        self.objects = [self._read(name) for name in self.names]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> dict[str, Any]:
        with Image.open(self._image(self.names[index])) as file:
            image = tv_tensors.Image(F.pil_to_tensor(as_rgb(file)))
        it = self.objects[index]
        boxes = tv_tensors.BoundingBoxes(it.boxes, format="XYXY", canvas_size=image.shape[-2:])  # type: ignore[call-arg]
        if self.transform is not None:
            image, boxes = self.transform(image, boxes)
        check_bytes(image)
        boxes, kept = F.sanitize_bounding_boxes(F.clamp_bounding_boxes(boxes))
        labels, difficult = it.labels[kept], it.difficult[kept]
        samples = {"boxes": boxes.as_subclass(Tensor), "labels": labels, "iscrowd": difficult}
        return {"inputs": image.as_subclass(Tensor), "data_samples": samples}

    def _image(self, name: str) -> Path:
        return self.root / "JPEGImages" / f"{name}.jpg"

    def _listed(self, split: str) -> list[str]:
        """Names of the images: the first word of each line. In the lists of one class, a number follows it."""
        file = self.root / "ImageSets" / "Main" / f"{split}.txt"
        if not file.is_file():
            there = (p.stem for p in file.parent.glob("*.txt"))
            raise PxframeError(f"'split' {split!r}: there is no {file}{near(split, there)}")
        return [line.split()[0] for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]

    def _read(self, name: str) -> Objects:
        file = self.root / "Annotations" / f"{name}.xml"
        for path in (file, self._image(name)):
            if not path.is_file():
                raise PxframeError(f"there is no {path}, which a list in ImageSets/Main names")
        try:
            found = ElementTree.parse(file).getroot().findall("object")  # parts of objects lie deeper
        except ElementTree.ParseError as error:
            raise PxframeError(f"{file} is no XML: {error}") from error
        hard = [_text(o, "difficult", file, "0") == "1" for o in found]
        kept = [(o, d) for o, d in zip(found, hard, strict=True) if self.difficult or not d]
        return Objects(
            torch.tensor([_box(o, file) for o, _ in kept], dtype=torch.float32).reshape(-1, 4),
            torch.tensor([self._label(o, file) for o, _ in kept], dtype=torch.int64),
            torch.tensor([d for _, d in kept], dtype=torch.bool),
        )

    def _label(self, item: ElementTree.Element, file: Path) -> int:
        name = _text(item, "name", file)
        if name not in self.classes:
            raise PxframeError(f"{file}: class {name!r} is not in 'classes' ({some(self.classes)})")
        return self.classes.index(name) + 1


def _box(item: ElementTree.Element, file: Path) -> tuple[float, float, float, float]:
    texts = [_text(item, f"bndbox/{key}", file) for key in ("xmin", "ymin", "xmax", "ymax")]
    try:
        left, top, right, bottom = (float(text) for text in texts)
    except ValueError as error:
        raise PxframeError(f"{file}: a box must have four numbers, got {', '.join(texts)}") from error
    if not (left < right and top < bottom):
        raise PxframeError(f"{file}: the box {', '.join(texts)} (xmin, ymin, xmax, ymax) is empty")
    return left - 1, top - 1, right, bottom


def _text(item: ElementTree.Element, key: str, file: Path, default: str | None = None) -> str:
    text = item.findtext(key, default)
    if text is None or not text.strip():
        raise PxframeError(f"{file}: an object has no {key!r}")
    return text.strip()
