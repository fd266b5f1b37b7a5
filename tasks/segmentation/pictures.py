"""Saved label maps beside the true ones, in the classes' colours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import pxframe
from pxframe.running.undisturbed import seeded

#: Colour of pixels that do not count.
_IGNORED = (128, 128, 128)


def pictures(dataset: Any, folder: Path, count: int, ignore_index: int) -> list[pxframe.Picture]:
    """The first ``count`` test images whose prediction lies in ``folder``.

    Args:
        dataset: mmseg's; its items hold the image, uint8 BGR ``[3, H, W]``, and the label.
    """
    classes = list(dataset.metainfo["classes"])
    palette = _palette(dataset.metainfo.get("palette"), len(classes))
    found = []
    for number in range(len(dataset)):
        file = folder / f"{Path(dataset.get_data_info(number)['img_path']).stem}.png"
        if len(found) == count:
            break
        if not file.is_file():
            continue
        with seeded(0, torch.device("cpu")):
            item = dataset[number]
        sample = item["data_samples"]
        truth = sample.gt_sem_seg.data[0].numpy()
        with Image.open(file) as opened:
            predicted = np.asarray(opened).astype(np.int64)
        if sample.get("reduce_zero_label", False):  # mmseg counts from 1 in the files of such data
            predicted -= 1
        size = truth.shape[::-1]
        image = Image.fromarray(np.ascontiguousarray(item["inputs"].numpy()[::-1].transpose(1, 2, 0)))
        drawn = [
            _drawn(label, palette, ignore_index).resize(size, Image.Resampling.NEAREST) for label in (truth, predicted)
        ]
        there = [c for c in range(len(classes)) if (truth == c).any() or (predicted == c).any()]
        colours = {classes[c]: "#{:02x}{:02x}{:02x}".format(*palette[c]) for c in there}
        if (truth == ignore_index).any():
            colours["does not count"] = "#{:02x}{:02x}{:02x}".format(*_IGNORED)
        found.append(pxframe.Picture(file.stem, image.resize(size), *drawn, colours))
    return found


def _palette(given: Sequence[Sequence[int]] | None, count: int) -> list[tuple[int, ...]]:
    """A colour for each class: the data set's own, or evenly spread ones."""
    if given and len(given) >= count:
        return [tuple(int(part) for part in colour) for colour in given]
    wheel = Image.new("HSV", (max(count, 1), 1))
    for c in range(count):  # light and dark in turn, so that neighbours on the wheel differ
        wheel.putpixel((c, 0), (255 * c // max(count, 1), 200, (240, 150)[c % 2]))
    return [wheel.convert("RGB").getpixel((c, 0)) for c in range(count)]  # type: ignore[misc]


def _drawn(label: np.ndarray, palette: Sequence[tuple[int, ...]], ignore_index: int) -> Image.Image:
    """``[H, W]`` class numbers as an RGB picture."""
    table = np.full((256, 3), _IGNORED, dtype=np.uint8)
    table[: len(palette)] = palette
    if 0 <= ignore_index < 256:
        table[ignore_index] = _IGNORED
    return Image.fromarray(table[np.clip(label, 0, 255)])
