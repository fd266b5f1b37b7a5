"""scikit-learn's handwritten digits (1797 images, 8x8 pixels) as data sets on disk: a first try without downloads.

The functions are for a task's ``prepare`` key. Both split the digits alike, so no test scene shows a digit that
training folders or scenes show.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pxframe

#: Class names of the scenes; class 0 is the background, digit d is class d + 1.
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
        part: from which share to which of each digit's images to write, so that two tasks may have different ones.
        textured: draw each digit as scenes show it, in a colour, on textured ground, anywhere in the image; harder.
    """
    import numpy as np
    from PIL import Image

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
                    canvas = _ground(rng, size)
                    _draw(rng, canvas, mine[i], _place(rng, size * 3 // 5, size))
                    image = _picture(canvas)
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
    """Write scenes of two to four digits on textured ground, in the layout of Pascal VOC.

    That is ``JPEGImages/*.jpg``, ``SegmentationClass/*.png`` (palette images, :data:`SCENE_CLASSES`, 255 along the
    digits' outlines) and ``ImageSets/Segmentation/train.txt`` and ``val.txt``.

    Args:
        train: number of training scenes.
        test: number of test scenes; they show test digits only.
        size: of the square scenes, in pixels, at least 32.
        seed: of places, sizes and colours.
        test_share: as in :func:`write_folders`.
    """
    import numpy as np

    if size < 32:
        raise pxframe.PxframeError(f"digits: scenes need a 'size' of at least 32 pixels, got {size}")
    root = Path(root)
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    digits = split_digits(test_share)
    for number, (split, listed, scenes) in enumerate((("train", "train", train), ("test", "val", test))):
        names = []
        for i in range(scenes):
            rng = np.random.default_rng([seed, number, i])
            image, label = _scene(rng, *digits[split], size)
            names.append(f"{split}_{i:05d}")
            image.save(root / "JPEGImages" / f"{names[-1]}.jpg", quality=95)
            label.save(root / "SegmentationClass" / f"{names[-1]}.png")
        text = "".join(f"{name}\n" for name in names)
        (root / "ImageSets" / "Segmentation" / f"{listed}.txt").write_text(text, encoding="utf-8")


def split_digits(test_share: float) -> dict[str, tuple[Any, Any]]:
    """``train`` and ``test``: uint8 images ``[N, 8, 8]``, bright on black, and their digits ``[N]``."""
    import numpy as np
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    data = load_digits()
    images = np.round(data.images * (255 / 16)).astype(np.uint8)
    if not 0 < test_share < 1:
        raise pxframe.PxframeError(f"digits: 'test_share' must be between 0 and 1, got {test_share}")
    parts = train_test_split(images, data.target, test_size=test_share, random_state=0, stratify=data.target)
    return {"train": (parts[0], parts[2]), "test": (parts[1], parts[3])}


def composed(rng: Any, images: Any, labels: Any, size: int) -> tuple[Any, list[tuple[int, Any, Any]]]:
    """An RGB image ``size`` by ``size`` of two to four digits on textured ground, and what was drawn.

    That is, of each: the digit, its greyscale image, and the part of the scene (two slices) which that fills.
    """
    canvas = _ground(rng, size)
    half = size // 2
    drawn = []
    for quarter in rng.permutation(4)[: rng.integers(2, 5)]:  # each digit in a quarter of its own: none hides another
        index = rng.integers(0, len(images))
        y, x, side = _place(rng, size * 3 // 8, half)
        place = y + half * (quarter // 2), x + half * (quarter % 2), side
        drawn.append((int(labels[index]), *_draw(rng, canvas, images[index], place)))
    return _picture(canvas), drawn


def shape_of(ink: Any) -> Any:
    """Which pixels of a drawn digit's greyscale image belong to it: 255, others 0."""
    return ink.point(lambda v: 255 if v > 96 else 0)


def _scene(rng: Any, images: Any, labels: Any, size: int) -> tuple[Any, Any]:
    """An RGB image and a palette image, ``size`` by ``size``."""
    import numpy as np
    from PIL import Image, ImageFilter

    image, drawn = composed(rng, images, labels, size)
    label = np.zeros((size, size), dtype=np.uint8)
    for digit, ink, window in drawn:
        shape = shape_of(ink)
        label[window][np.asarray(shape.filter(ImageFilter.MaxFilter(3))) > 0] = _BORDER
        label[window][np.asarray(shape) > 0] = digit + 1
    indexed = Image.fromarray(label, mode="P")
    indexed.putpalette(_palette())
    return image, indexed


def _ground(rng: Any, size: int) -> Any:
    """Float RGB ``[size, size, 3]`` of coloured patches, at most 122 bright: the digits are brighter."""
    import numpy as np
    from PIL import Image

    def texture(grid: int) -> Any:
        noise = rng.integers(0, 256, (grid, grid, 3), dtype=np.uint8)
        return np.asarray(Image.fromarray(noise).resize((size, size), Image.Resampling.BICUBIC), dtype=np.float32)

    return 20 + 0.25 * texture(4) + 0.15 * texture(16)


def _place(rng: Any, smallest: int, room: int) -> tuple[int, int, int]:
    """Row, column and side of a square somewhere in a square of ``room``."""
    side = int(rng.integers(smallest, room + 1))
    y, x = rng.integers(0, room - side + 1, 2)
    return int(y), int(x), side


def _draw(rng: Any, canvas: Any, digit: Any, place: tuple[int, int, int]) -> tuple[Any, Any]:
    """Draw a digit in a bright colour; gives its greyscale image and the part of the canvas it lies in."""
    import numpy as np
    from PIL import Image

    y, x, side = place
    # a margin, as some digits reach the edge and their outline lies outside
    ink = Image.fromarray(np.pad(digit, 1)).resize((side, side), Image.Resampling.BICUBIC)
    opacity = np.asarray(ink, dtype=np.float32)[..., None] / 255
    window = np.s_[y : y + side, x : x + side]
    canvas[window] = (1 - opacity) * canvas[window] + opacity * rng.integers(150, 256, 3)
    return ink, window


def _picture(canvas: Any) -> Any:
    import numpy as np
    from PIL import Image

    return Image.fromarray(np.clip(canvas, 0, 255).astype(np.uint8))


def _palette() -> list[int]:
    """Pascal VOC's colours: the bits of a class number, dealt to red, green and blue from the highest bit down."""
    colours = []
    for number in range(256):
        for channel in range(3):
            colours.append(sum(((number >> (3 * bit + channel)) & 1) << (7 - bit) for bit in range(3)))
    return colours
