"""Label tensors: int64 tensors of an activation's shape that say to which unit each element belongs.

Where labels repeat, as at all pixels of a channel, the tensor is expanded (stride 0). So it takes one number a channel
at any resolution. The functions here keep it expanded.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

#: The label of elements that belong to no unit.
NONE = -1


def along(labels: Tensor, dim: int, shape: Sequence[int]) -> Tensor:
    """Lay ``labels``, ``[shape[dim]]``, along dimension ``dim`` of ``shape``, and repeat them along all others."""
    view = [1] * len(shape)
    view[dim] = -1
    return labels.view(view).expand(shape)


def compact(labels: Tensor) -> Tensor:
    """Keep one element along each dimension in which the labels repeat."""
    return _together([labels])[0]


def side_by_side(parts: list[Tensor], shape: Sequence[int]) -> Tensor:
    """Broadcast ``parts`` to ``shape`` and stack them in a new last dimension.

    A dimension in which all parts repeat has size 1 in the result.
    """
    return torch.stack(_together([part.expand(shape) for part in parts]), -1)


def concatenated(parts: list[Tensor], dim: int, shape: Sequence[int]) -> Tensor:
    """Concatenate ``parts`` along ``dim``; the result has the shape ``shape``."""
    dim %= len(shape)
    return torch.cat(_together(parts, but=dim), dim).expand(shape)


def padded(labels: Tensor, amounts: Sequence[int], shape: Sequence[int]) -> Tensor:
    """Pad labels by ``amounts`` (in the order of ``torch.nn.functional.pad``); the result has the shape ``shape``.

    Padded pixels belong to their channel's unit. New channels belong to no unit.
    """
    amounts = list(amounts)
    for place in range(0, len(amounts), 2):
        dim = labels.ndim - 1 - place // 2
        if dim > 1 and labels.stride(dim) == 0:
            labels = labels.narrow(dim, 0, 1)
            amounts[place : place + 2] = [0, 0]
    return torch.constant_pad_nd(labels, amounts, NONE).expand(shape)


def pairs(labels: Tensor) -> Tensor:
    """All different pairs of a unit and its position in the last dimension, sorted; int64 ``[2, pairs]``."""
    channels = labels.shape[-1]
    rows = compact(labels).expand(*[-1] * (labels.ndim - 1), channels)
    keys = (rows * channels + torch.arange(channels))[rows != NONE].unique()
    return torch.stack([keys // channels, keys % channels])


def _together(parts: list[Tensor], but: int | None = None) -> list[Tensor]:
    """Keep one element along each dimension in which all ``parts`` repeat, except the dimension ``but``."""
    for dim in range(parts[0].ndim):
        if dim != but and all(part.stride(dim) == 0 for part in parts):
            parts = [part.narrow(dim, 0, 1) for part in parts]
    return parts
