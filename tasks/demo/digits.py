"""scikit-learn's handwritten digits (1797 images, 8x8 pixels) as data sets on disk: a first try without downloads.

The functions are for a task's ``prepare`` key. Both split the digits alike, so test scenes show no digit that is in the
training folders or in training scenes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from PIL import Image, ImageFilter

import pxframe
from pxframe.base.options import positive, share, whole_number
from pxframe_tasks.demo.drawing import composed, draw, ground, picture, place, shape_of

#: Class names of the scenes; class 0 is the background, digit d is class d + 1. Boxes have the classes but the first.
SCENE_CLASSES = ("background", "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_BORDER = 255


def write_folders(
    root: str | Path,
    classes: Sequence[int] = range(10),
    size: int = 32,
    test_share: float = 0.25,
    part: Sequence[float] = (0.0, 1.0),
    textured: bool = False,
) -> None:
    """Write ``train/DIGIT/N.png`` and ``test/DIGIT/N.png``, as torchvision's ``ImageFolder`` reads them.

    Args:
        classes: the digits to write.
        size: of the images, in pixels.
        test_share: share of each digit's images that is for testing.
        part: two shares; the images of each digit from the first share to the second are written, so that two tasks
            can have different images.
        textured: draw each digit as in the scenes: in a colour, on textured ground, anywhere in the image. Such images
            are harder to classify.
    """
    start, stop = part
    if not (0 <= start < stop <= 1 and classes and set(classes) <= set(range(10))):
        raise pxframe.PxframeError(
            f"digits: 'classes' must be digits and 'part' two rising shares, got {classes!r} and {part!r}"
        )
    for split, (images, labels) in split_digits(test_share).items():
        for digit in classes:
            folder = Path(root) / split / str(digit)
            folder.mkdir(parents=True)
            mine = images[labels == digit]
            for i in range(round(start * len(mine)), round(stop * len(mine))):
                if textured:
                    rng = np.random.default_rng([digit, i, split == "train"])
                    canvas = ground(rng, size)
                    draw(rng, canvas, mine[i], place(rng, size * 3 // 5, size))
                    image = picture(canvas)
                else:
                    image = Image.fromarray(mine[i]).resize((size, size), Image.Resampling.BICUBIC).convert("RGB")
                image.save(folder / f"{i:04d}.png")


def write_scenes(
    root: str | Path,
    train: int = 200,
    test: int = 50,
    size: int = 64,
    seed: int = 0,
    test_share: float = 0.25,
) -> None:
    """Write scenes of two to four digits on textured ground, with labels and boxes, in the layout of Pascal VOC.

    The files are ``JPEGImages/*.jpg``; ``SegmentationClass/*.png``, palette images with the classes
    :data:`SCENE_CLASSES` and 255 along the outlines of digits; ``Annotations/*.xml``, with boxes tight around the
    digits in Pascal VOC's coordinates (the first pixel is 1, and the last pixel is inside); and the lists ``train.txt``
    and ``val.txt`` in ``ImageSets/Segmentation`` and ``ImageSets/Main``.

    Args:
        train: number of training scenes.
        test: number of test scenes; they show test digits only.
        size: height and width of the scenes in pixels, at least 32.
        seed: seed of places, sizes and colours.
        test_share: as in :func:`write_folders`.
    """
    whole_number("digits: scenes", "size", size, least=32)
    root = Path(root)
    lists = [root / "ImageSets" / kind for kind in ("Segmentation", "Main")]
    for folder in (*(root / name for name in ("JPEGImages", "SegmentationClass", "Annotations")), *lists):
        folder.mkdir(parents=True)
    digits = split_digits(test_share)
    for number, (split, listed, scenes) in enumerate((("train", "train", train), ("test", "val", test))):
        names = [f"{split}_{i:05d}" for i in range(scenes)]
        for i, name in enumerate(names):
            image, drawn = composed(np.random.default_rng([seed, number, i]), *digits[split], size)
            image.save(root / "JPEGImages" / f"{name}.jpg", quality=95)
            _labels(size, drawn).save(root / "SegmentationClass" / f"{name}.png")
            _annotation(name, size, drawn).write(root / "Annotations" / f"{name}.xml")
        for folder in lists:
            (folder / f"{listed}.txt").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")


def split_digits(test_share: float) -> dict[str, tuple[Any, Any]]:
    """Split the digits into ``train`` and ``test``, each a pair: uint8 images ``[N, 8, 8]``, and classes ``[N]``."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    data = load_digits()
    images = np.round(data.images * (255 / 16)).astype(np.uint8)
    share("digits", "test_share", positive("digits", "test_share", test_share))
    parts = train_test_split(images, data.target, test_size=test_share, random_state=0, stratify=data.target)
    return {"train": (parts[0], parts[2]), "test": (parts[1], parts[3])}


def _labels(size: int, drawn: list[Any]) -> Image.Image:
    """The palette image of a scene."""
    label = np.zeros((size, size), dtype=np.uint8)
    for digit, ink, window in drawn:
        shape = shape_of(ink)
        label[window][np.asarray(shape.filter(ImageFilter.MaxFilter(3))) > 0] = _BORDER
        label[window][np.asarray(shape) > 0] = digit + 1
    indexed = Image.fromarray(label, mode="P")
    indexed.putpalette(_palette())
    return indexed


def _annotation(name: str, size: int, drawn: list[Any]) -> ElementTree.ElementTree[ElementTree.Element]:
    """The boxes of a scene."""
    root = ElementTree.Element("annotation")
    ElementTree.SubElement(root, "filename").text = f"{name}.jpg"
    sides = ElementTree.SubElement(root, "size")
    for key, value in (("width", size), ("height", size), ("depth", 3)):
        ElementTree.SubElement(sides, key).text = str(value)
    for digit, ink, (rows, columns) in drawn:
        left, top, right, bottom = shape_of(ink).getbbox()
        y, x = rows.start, columns.start
        item = ElementTree.SubElement(root, "object")
        ElementTree.SubElement(item, "name").text = SCENE_CLASSES[digit + 1]
        ElementTree.SubElement(item, "difficult").text = "0"
        corners = ElementTree.SubElement(item, "bndbox")
        for key, value in (("xmin", x + left + 1), ("ymin", y + top + 1), ("xmax", x + right), ("ymax", y + bottom)):
            ElementTree.SubElement(corners, key).text = str(value)
    return ElementTree.ElementTree(root)


def _palette() -> list[int]:
    """Pascal VOC's colours: the bits of a class number are dealt to red, green and blue, the lowest three first.

    They become the highest bits of the colours.
    """
    colours = []
    for number in range(256):
        for channel in range(3):
            colours.append(sum(((number >> (3 * bit + channel)) & 1) << (7 - bit) for bit in range(3)))
    return colours
