"""Saved boxes beside the true ones, drawn on the image."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw

import pxframe
from pxframe.files.writing import read_json
from pxframe.running.undisturbed import seeded

_LEAST_SCORE = 0.5
_SIDE = 240  # pixels of the longer side: lines of two pixels are seen on a small image, too


def pictures(dataset: Any, file: Path, count: int) -> list[pxframe.Picture]:
    """The first ``count`` test images of a :class:`pxframe_tasks.detection.voc_boxes.VOCBoxes`.

    Raises:
        PxframeError: ``file`` is damaged, or is of other test images.
    """
    found = read_json(file).get("found")
    if not isinstance(found, list) or len(found) != len(dataset):
        raise pxframe.PxframeError(f"{file} is not of these {len(dataset)} test images; run the job again")
    wheel = [colorsys.hsv_to_rgb(c / len(dataset.classes), 0.9, 1.0) for c in range(len(dataset.classes))]
    hues = ["#{:02x}{:02x}{:02x}".format(*(int(255 * part) for part in colour)) for colour in wheel]
    result = []
    for number in range(min(count, len(dataset))):
        with seeded(0, torch.device("cpu")):
            item = dataset[number]
        image = Image.fromarray(item["inputs"].permute(1, 2, 0).numpy())
        scale = _SIDE / max(image.size)
        image = image.resize([max(1, round(scale * side)) for side in image.size])  # type: ignore[arg-type]
        truth, said = item["data_samples"], found[number]
        kept = [i for i, score in enumerate(said["scores"]) if score >= _LEAST_SCORE]
        labels = [truth["labels"].tolist(), [said["labels"][i] for i in kept]]
        boxes = [truth["boxes"].tolist(), [said["boxes"][i] for i in kept]]
        drawn = [_drawn(image, scale, *both, hues) for both in zip(boxes, labels, strict=True)]
        there = sorted({label for some in labels for label in some})
        colours = {dataset.classes[label - 1]: hues[label - 1] for label in there}
        result.append(pxframe.Picture(dataset.names[number], image, *drawn, colours))
    return result


def _drawn(
    image: Image.Image, scale: float, boxes: Sequence[Sequence[float]], labels: Sequence[int], hues: Sequence[str]
) -> Image.Image:
    """A copy of the image with boxes, in its own pixels times ``scale``, in the colours of their labels."""
    copy = image.copy()
    pen = ImageDraw.Draw(copy)
    for box, label in zip(boxes, labels, strict=True):
        pen.rectangle([scale * edge for edge in box], outline=hues[label - 1], width=2)
    return copy
