"""Scenes of scikit-learn's handwritten digits with a box around each, in Pascal VOC's layout."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pxframe
from pxframe_tasks.demo.digits import SCENE_CLASSES, composed, shape_of, split_digits

#: Class names of the boxes.
CLASSES = SCENE_CLASSES[1:]


def write(
    root: str | Path,
    train: int = 400,
    test: int = 100,
    size: int = 64,
    seed: int = 0,
    test_share: float = 0.25,
) -> None:
    """Write scenes of two to four digits on textured ground, in the layout of Pascal VOC.

    That is ``JPEGImages/*.jpg``, ``Annotations/*.xml`` (boxes tight around the digits, in Pascal VOC's coordinates: the
    first pixel is 1, and the last one is inside) and ``ImageSets/Main/train.txt`` and ``val.txt``. Test scenes show
    digits that no training scene shows, here and in :mod:`pxframe_tasks.demo.digits`.

    Args:
        train: number of training scenes.
        test: number of test scenes.
        size: of the square scenes, in pixels, at least 32.
        seed: of places, sizes and colours.
        test_share: share of each digit's images that is for testing.
    """
    import numpy as np

    if size < 32:
        raise pxframe.PxframeError(f"digits: scenes need a 'size' of at least 32 pixels, got {size}")
    root = Path(root)
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    digits = split_digits(test_share)
    for number, (split, listed, scenes) in enumerate((("train", "train", train), ("test", "val", test))):
        names = [f"{split}_{i:05d}" for i in range(scenes)]
        for i, name in enumerate(names):
            image, drawn = composed(np.random.default_rng([seed, number, i]), *digits[split], size)
            image.save(root / "JPEGImages" / f"{name}.jpg", quality=95)
            boxes = []
            for digit, ink, (rows, columns) in drawn:
                left, top, right, bottom = shape_of(ink).getbbox()
                y, x = rows.start, columns.start
                boxes.append((CLASSES[digit], (x + left + 1, y + top + 1, x + right, y + bottom)))
            _annotation(name, size, boxes).write(root / "Annotations" / f"{name}.xml")
        text = "".join(f"{name}\n" for name in names)
        (root / "ImageSets" / "Main" / f"{listed}.txt").write_text(text, encoding="utf-8")


def _annotation(
    name: str, size: int, boxes: list[tuple[str, tuple[int, int, int, int]]]
) -> ElementTree.ElementTree[ElementTree.Element]:
    root = ElementTree.Element("annotation")
    ElementTree.SubElement(root, "filename").text = f"{name}.jpg"
    sides = ElementTree.SubElement(root, "size")
    for key, value in (("width", size), ("height", size), ("depth", 3)):
        ElementTree.SubElement(sides, key).text = str(value)
    for label, box in boxes:
        item = ElementTree.SubElement(root, "object")
        ElementTree.SubElement(item, "name").text = label
        ElementTree.SubElement(item, "difficult").text = "0"
        corners = ElementTree.SubElement(item, "bndbox")
        for key, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True):
            ElementTree.SubElement(corners, key).text = str(value)
    return ElementTree.ElementTree(root)
