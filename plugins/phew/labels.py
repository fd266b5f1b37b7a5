"""Label tensors: int64, of an activation's shape, expanded (stride 0) wherever they repeat, as at every pixel.

So they take a channel's room at any resolution, as long as what is done to them keeps them expanded.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

#: The label of what belongs to no unit.
NONE = -1


def along(labels: Tensor, dim: int, shape: Sequence[int]) -> Tensor:
    """``labels`` along one dimension of ``shape``, the same along all others."""
    view = [1] * len(shape)
    view[dim] = -1
    return labels.view(view).expand(shape)


def compact(labels: Tensor) -> Tensor:
    """One element along each dimension that repeats."""
    return _together([labels])[0]


def side_by_side(parts: list[Tensor], shape: Sequence[int]) -> Tensor:
    """Broadcast to ``shape`` and stacked in a new last dimension, without what repeats in all of them."""
    return torch.stack(_together([part.expand(shape) for part in parts]), -1)


def concatenated(parts: list[Tensor], dim: int, shape: Sequence[int]) -> Tensor:
    dim %= len(shape)
    return torch.cat(_together(parts, but=dim), dim).expand(shape)


def padded(labels: Tensor, amounts: Sequence[int], shape: Sequence[int]) -> Tensor:
    """Padding (amounts as in ``torch.nn.functional.pad``) belongs to no unit, or inside a channel to the channel's."""
    amounts = list(amounts)
    for place in range(0, len(amounts), 2):
        dim = labels.ndim - 1 - place // 2
        if dim > 1 and labels.stride(dim) == 0:
            labels = labels.narrow(dim, 0, 1)
            amounts[place : place + 2] = [0, 0]
    return torch.constant_pad_nd(labels, amounts, NONE).expand(shape)


def pairs(labels: Tensor) -> Tensor:
    """The pairs (unit, position in the last dimension) there are, sorted; ``[2, pairs]``."""
    channels = labels.shape[-1]
    rows = compact(labels).expand(*[-1] * (labels.ndim - 1), channels)
    keys = (rows * channels + torch.arange(channels))[rows != NONE].unique()
    return torch.stack([keys // channels, keys % channels])


def _together(parts: list[Tensor], but: int | None = None) -> list[Tensor]:
    """One element along each dimension (``but`` one) that repeats in all of ``parts``."""
    for dim in range(parts[0].ndim):
        if dim != but and all(part.stride(dim) == 0 for part in parts):
            parts = [part.narrow(dim, 0, 1) for part in parts]
    return parts
