"""Channels of several layers that go together: what the layers have for them, joined into one."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

#: By group, for each layer of it (by its weight's name) the row of the weight that belongs to each channel of the
#: group, int64 ``[channels]``. Each row of such a weight belongs to one channel of one group.
Ties = Mapping[str, Mapping[str, Tensor]]


def summed(stacked: Tensor) -> Tensor:
    """The sum over the layers, in the first dimension."""
    return stacked.sum(0)


def joined(ties: Ties, channels: Mapping[str, Tensor], join: Callable[[Tensor], Tensor] = summed) -> dict[str, Tensor]:
    """By group, what its layers have for each of its channels, joined over the layers.

    Args:
        channels: by layer, ``[..., rows]``.
        join: makes ``[..., channels]`` of ``[layers, ..., channels]``.

    Returns:
        by group, ``[..., channels]``.
    """
    return {
        group: join(torch.stack([channels[layer].index_select(-1, at) for layer, at in members.items()]))
        for group, members in ties.items()
    }
