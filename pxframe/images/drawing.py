"""Which training images a backbone is scored on."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch

from pxframe.base.errors import PxframeError
from pxframe.base.options import whole_number

_log = logging.getLogger(__name__)


def drawn(total: int, samples: int, labels: Sequence[Any] | None, seed: int) -> list[int]:
    """Draw ``samples`` indices out of ``total``.

    With ``labels``, every class gives one image before any class gives a second. Where there are fewer images than
    asked for, all are taken, and one line of warning names both numbers.

    Args:
        labels: the class of every image, as plain Python values; None draws without regard to classes.

    Raises:
        PxframeError: ``samples`` is no whole number above 0, or there are no images.
    """
    whole_number("a draw of images", "samples", samples)
    if total < 1:
        raise PxframeError("there are no images to draw from")
    if samples > total:
        _tell_few(total, samples)
    order: list[int] = torch.randperm(total, generator=torch.Generator().manual_seed(seed)).tolist()
    if labels is not None:
        seen: Counter[Any] = Counter()
        turn = {}
        for index in order:
            turn[index] = seen[labels[index]]
            seen[labels[index]] += 1
        order.sort(key=turn.__getitem__)  # stable: within a turn, the order drawn
    return order[:samples]


@cache  # once in a process: a job draws the same images for every ticket
def _tell_few(total: int, samples: int) -> None:
    _log.warning("'samples' asks for %d images, and the data set has %d: all of them are taken", samples, total)
