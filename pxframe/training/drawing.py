"""Which training images a backbone is scored on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch

from pxframe.base.errors import PxframeError


def drawn(total: int, samples: int, labels: Sequence[Any] | None, seed: int) -> list[int]:
    """``samples`` indices out of ``total``, by ``seed``; with ``labels``, one of each class before a second of any."""
    if type(samples) is not int or samples < 1:
        raise PxframeError(f"'samples' must be a whole number above 0, got {samples!r}")
    order: list[int] = torch.randperm(total, generator=torch.Generator().manual_seed(seed)).tolist()
    if labels is not None:
        seen: Counter[Any] = Counter()
        turn = {}
        for index in order:
            turn[index] = seen[labels[index]]
            seen[labels[index]] += 1
        order.sort(key=turn.__getitem__)  # stable: within a turn, the order drawn
    return order[:samples]
