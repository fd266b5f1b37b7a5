"""Handwritten digits drawn in colours on textured ground."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image


def composed(rng: np.random.Generator, images: Any, labels: Any, size: int) -> tuple[Image.Image, list[Any]]:
    """Compose an RGB image, ``size`` by ``size``, of two to four digits on textured ground.

    Returns:
        the image, and for every digit: its class, its greyscale image, and the part of the scene (two slices) that
        the greyscale image fills.
    """
    canvas = ground(rng, size)
    half = size // 2
    drawn = []
    for quarter in rng.permutation(4)[: rng.integers(2, 5)]:  # each digit in a quarter of its own: none hides another
        index = rng.integers(0, len(images))
        y, x, side = place(rng, size * 3 // 8, half)
        where = y + half * (quarter // 2), x + half * (quarter % 2), side
        drawn.append((int(labels[index]), *draw(rng, canvas, images[index], where)))
    return picture(canvas), drawn


def shape_of(ink: Any) -> Any:
    """255 in the pixels of a drawn digit's greyscale image that belong to the digit, 0 in the others."""
    return ink.point(lambda v: 255 if v > 96 else 0)


def ground(rng: Any, size: int) -> Any:
    """Float RGB ``[size, size, 3]`` of coloured patches, at most 122 bright: the digits are brighter."""

    def texture(grid: int) -> Any:
        noise = rng.integers(0, 256, (grid, grid, 3), dtype=np.uint8)
        return np.asarray(Image.fromarray(noise).resize((size, size), Image.Resampling.BICUBIC), dtype=np.float32)

    return 20 + 0.25 * texture(4) + 0.15 * texture(16)


def place(rng: Any, smallest: int, room: int) -> tuple[int, int, int]:
    """Row, column and side of a square somewhere in a square of ``room``."""
    side = int(rng.integers(smallest, room + 1))
    y, x = rng.integers(0, room - side + 1, 2)
    return int(y), int(x), side


def draw(rng: Any, canvas: Any, digit: Any, where: tuple[int, int, int]) -> tuple[Any, Any]:
    """Draw a digit in a bright colour. Returns its greyscale image, and the part of the canvas that it fills."""
    y, x, side = where
    # a margin, as some digits reach the edge and their outline lies outside
    ink = Image.fromarray(np.pad(digit, 1)).resize((side, side), Image.Resampling.BICUBIC)
    opacity = np.asarray(ink, dtype=np.float32)[..., None] / 255
    window = np.s_[y : y + side, x : x + side]
    canvas[window] = (1 - opacity) * canvas[window] + opacity * rng.integers(150, 256, 3)
    return ink, window


def picture(canvas: Any) -> Image.Image:
    """The canvas as an 8-bit image."""
    return Image.fromarray(np.clip(canvas, 0, 255).astype(np.uint8))
