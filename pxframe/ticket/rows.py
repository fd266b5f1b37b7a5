"""Rows of fused weights, such as those of ``qkv`` that make the queries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor


def emptied_rows(masks: Mapping[str, Tensor], fused: Any) -> list[str]:
    """The parts of fused weights with nothing kept, as ``"qkv.weight[q]"``, of masks that are not empty themselves.

    Args:
        fused: a mask's name -> a part's name -> ranges of rows, (first, last + 1); anything else counts as no part.
    """
    found = []
    for name, parts in fused.items() if isinstance(fused, Mapping) else ():
        if name in masks and isinstance(parts, Mapping) and masks[name].any():
            for part, ranges in sorted(parts.items(), key=lambda item: item[1]):  # a file sorts them by name
                if not any(masks[name][start:stop].any() for start, stop in ranges):
                    found.append(f"{name}[{part}]")
    return found
