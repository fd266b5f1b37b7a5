"""Predictions beside the truth, as the tasks draw them, in few bytes."""

from __future__ import annotations

import base64
import io
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pxframe.base.errors import PxframeError, blaming
from pxframe.plugin.registry import build
from pxframe.plugin.task import Picture, Task
from pxframe.report.data.compare import Answer
from pxframe.report.data.found import Found

if TYPE_CHECKING:
    from PIL.Image import Image

COUNT = 2  # images of each task
_MOST = 4  # variants of each task
_SIDE = 180  # pixels of the longer side
_FLAT = 256  # colours, at most, of a picture that is a map
#: Bytes that all pictures of a page may take.
BUDGET = 150_000


@dataclass
class Shown:
    """One test image: pictures as ``data:`` addresses, predictions by variant, colours by name."""

    name: str
    image: str
    truth: str
    predicted: dict[str, str] = field(default_factory=dict)
    colours: dict[str, str] = field(default_factory=dict)


@dataclass
class Gallery:
    """The pictures of a task, of the runs of one seed; or a sentence that says why there are none."""

    task: str
    seed: int
    shown: list[Shown] = field(default_factory=list)
    note: str = ""


def galleries(found: Found, answers: Sequence[Answer], tasks: Mapping[str, Task] | None = None) -> list[Gallery]:
    """For each task that draws pictures: some test images, as the dense network and the best tickets see them.

    Args:
        tasks: by name, built already; default: they are built from the job's settings.
    """
    result, left = [], BUDGET
    for name in dict.fromkeys(row["task"] for row in found.rows):
        gallery = Gallery(name, found.seeds[0])
        try:
            task = tasks[name] if tasks is not None and name in tasks else _built(found, name)
            if task is None or type(task).pictures is Task.pictures:
                continue
            left = _fill(gallery, found, task, _variants(found, answers, name), left)
        except PxframeError as error:
            gallery.note = str(error)
        if gallery.shown or gallery.note:
            result.append(gallery)
    return result


def _built(found: Found, name: str) -> Task | None:
    config = found.job.get("tasks", {}).get(name)
    if config is None:
        return None
    # Modules beside the config can be named in it, as when the job was run.
    for beside in (Path(str(found.job.get("file", ""))).resolve().parent, Path.cwd()):
        if str(beside) not in sys.path:
            sys.path.append(str(beside))
    task: Task = build("task", config, f"task {name!r}")
    return task


def _variants(found: Found, answers: Sequence[Answer], task: str) -> list[str]:
    """The dense network and the best ticket of each level, the sparsest of these where there are many."""
    mine = [answer for answer in answers if answer.task == task]
    dense = [answer.dense["variant"] for answer in mine[:1] if answer.dense is not None]
    best = [answer.best["variant"] for answer in mine if answer.best is not None]
    every = dict.fromkeys(row["variant"] for row in found.rows if row["task"] == task)
    return list(dict.fromkeys([*dense, *best[-(_MOST - len(dense)) :]])) or list(every)[:_MOST]


def _fill(gallery: Gallery, found: Found, task: Task, variants: Sequence[str], left: int) -> int:
    """Add what ``task`` draws of each variant. Returns the bytes that are left for further pictures."""
    seen: dict[str, Shown] = {}
    for variant in variants:
        runs = [row for row in found.rows if (row["task"], row["variant"]) == (gallery.task, variant)]
        if not any(row["seed"] == gallery.seed and row["value"] is not None for row in runs):
            continue
        folder = found.root / f"seed-{gallery.seed}" / gallery.task / variant
        with blaming(f"task {gallery.task!r}: its pictures"):
            pictures: Sequence[Picture] = task.pictures(folder, COUNT)
        for picture in pictures:
            parts = [] if picture.name in seen else [picture.image, picture.truth]
            addresses = [address(part) for part in (*parts, picture.predicted)]
            if sum(map(len, addresses)) > left:
                gallery.note = "Further pictures are left out, to keep the page small."
                return left
            left -= sum(map(len, addresses))
            if parts:
                seen[picture.name] = Shown(picture.name, addresses[0], addresses[1])
                gallery.shown.append(seen[picture.name])
            seen[picture.name].predicted[variant] = addresses[-1]
            seen[picture.name].colours |= picture.colours
    return left


def address(image: Image) -> str:
    """A small copy of a picture as a ``data:`` address."""
    from PIL import Image as images

    small = image.convert("RGB")
    flat = small.getcolors(_FLAT) is not None  # a map of classes: mixed colours would be those of other classes
    small.thumbnail((_SIDE, _SIDE), images.Resampling.NEAREST if flat else images.Resampling.LANCZOS)
    out = io.BytesIO()
    small.save(out, "WEBP", quality=82, method=6, lossless=flat)
    return f"data:image/webp;base64,{base64.b64encode(out.getvalue()).decode()}"
