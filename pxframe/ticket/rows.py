"""Blocks of rows of fused weights, such as the queries of ``qkv``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor


def emptied_rows(masks: Mapping[str, Tensor], blocks: Any) -> list[str]:
    """The blocks of rows with nothing kept, as ``"qkv.weight[q]"``, of masks that are not empty themselves.

    Args:
        blocks: a mask's name -> a block's name -> ranges of rows, (first, last + 1); anything else counts as no block.
    """
    found = []
    for name, of in blocks.items() if isinstance(blocks, Mapping) else ():
        if name in masks and isinstance(of, Mapping) and masks[name].any():
            for block, ranges in sorted(of.items(), key=lambda item: item[1]):  # a file sorts them by name
                if not any(masks[name][start:stop].any() for start, stop in ranges):
                    found.append(f"{name}[{block}]")
    return found
