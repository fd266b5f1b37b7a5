"""Rows of fused weights, such as those of ``qkv`` that make the queries."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor


def parts(masks: Mapping[str, Tensor], fused: Any) -> Iterator[tuple[str, str, Tensor]]:
    """The parts of fused weights: the name of the mask, that of the part, and the part's rows of the mask.

    Args:
        fused: a mask's name -> a part's name -> ranges of rows, (first, last + 1); anything else counts as no part.
    """
    for name, ranges in fused.items() if isinstance(fused, Mapping) else ():
        if name in masks and isinstance(ranges, Mapping):
            for part, rows in sorted(ranges.items(), key=lambda item: item[1]):  # a file sorts them by name
                yield name, part, torch.cat([masks[name][start:stop] for start, stop in rows])
