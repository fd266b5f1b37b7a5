"""Layers with nothing left, or almost nothing; and queries, keys or values of a fused weight (``"qkv.weight[q]"``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from pxframe.ticket.rows import parts


def emptied(masks: Mapping[str, Tensor], fused: Any) -> list[str]:
    """The masks that keep nothing, and the parts that keep nothing of masks that keep something.

    Args:
        fused: which rows are which part, as for :func:`pxframe.ticket.rows.parts`.
    """
    whole = [name for name, mask in masks.items() if mask.numel() and not mask.any()]
    return whole + [f"{n}[{part}]" for n, part, rows in parts(masks, fused) if masks[n].any() and not rows.any()]


def nearly_emptied(masks: Mapping[str, Tensor], fused: Any) -> dict[str, int]:
    """The masks, and the parts of other masks, that keep almost nothing, with the number of weights that they keep.

    That is fewer weights than there are outputs, or than an output has inputs if these are fewer, so that some outputs
    and some inputs have no weight at all; and less than a tenth of the share that the ticket keeps as a whole. By the
    first alone a very sparse ticket would have every small layer named, by the second alone a layer that still connects
    all its outputs.
    """
    kept, total = (sum(int(f(m)) for m in masks.values()) for f in (Tensor.count_nonzero, Tensor.numel))
    density = kept / max(total, 1)
    whole = {name: mask for name, mask in masks.items() if _is_nearly_empty(mask, density)}
    inside = {f"{n}[{part}]": rows for n, part, rows in parts(masks, fused) if n not in whole}
    found = {**whole, **{name: rows for name, rows in inside.items() if _is_nearly_empty(rows, density)}}
    return {name: int(mask.count_nonzero()) for name, mask in found.items()}


def _is_nearly_empty(mask: Tensor, density: float) -> bool:
    if mask.ndim < 2:
        return False
    kept, outputs, weights = int(mask.count_nonzero()), len(mask), mask.numel()
    return 0 < kept < min(outputs, weights // max(outputs, 1)) and kept < density / 10 * weights
