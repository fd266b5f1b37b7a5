"""What a channel that always has the same value adds to the layers that read it goes into what is left of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pxframe.slimming.groups import Group

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True)
class Idle:
    """Channels of a group that may be removed.

    Attributes:
        group: the group.
        channels: their numbers.
        carrier: the channel that stays and carries what some of them add; None if none is needed.
    """

    group: Group
    channels: list[int]
    carrier: int | None


def find_idle(group: Group, model: nn.Module, constants: Mapping[str, Tensor]) -> Idle:
    """The channels of a group that every reader either ignores, or reads a constant from that can be folded.

    A constant that is not zero cannot become a bias where a convolution pads its input with zeros: near the border it
    counts less. Such channels are merged into one of them, which stays (see :func:`fold`).
    """
    found, carried = [], []
    for channel in range(group.size):
        states = [_state(model.get_submodule(name), constants[name], at[channel]) for name, at in group.readers.items()]
        if all(state in ("ignored", "folds") for state in states):
            found.append(channel)
        elif "varies" not in states:
            carried.append(channel)
    carrier = _carrier(group, model, constants, carried)
    found += [channel for channel in carried if carrier is not None and channel != carrier]
    # One channel stays, since a layer without any is none.
    return Idle(group, sorted(found)[: group.size - 1], carrier)


def fold(idle: Idle, model: nn.Module, constants: Mapping[str, Tensor]) -> None:
    """Put what the channels add into the biases of their readers, or into the channel that carries for the others."""
    with torch.no_grad():
        for name, at in idle.group.readers.items():
            layer: Any = model.get_submodule(name)
            for channel in idle.channels:
                for position, index in enumerate(at[channel]):
                    value = float(constants[name][index])
                    column = _column(layer, index)
                    if value == 0 or not column.any():
                        continue
                    if not _pads(layer):
                        _add_bias(layer, value * column.flatten(1).sum(1))
                        continue
                    assert idle.carrier is not None
                    other = at[idle.carrier][position]
                    column_of_carrier = _column(layer, other)
                    column_of_carrier += column * (value / float(constants[name][other]))


def _state(layer: nn.Module, constants: Tensor, indices: list[int]) -> str:
    states = set()
    for index in indices:
        value = float(constants[index])
        if not _column(layer, index).any():
            states.add("ignored")
        elif value != value:  # NaN
            states.add("varies")
        else:
            states.add("folds" if value == 0 or not _pads(layer) else "carried")
    return next((state for state in ("varies", "carried", "folds") if state in states), "ignored")


def _carrier(group: Group, model: nn.Module, constants: Mapping[str, Tensor], carried: list[int]) -> int | None:
    """The channel among them with the largest constants at the convolutions that pad; None if one is zero there."""
    best, largest = None, 0.0
    for channel in carried:
        values = [
            abs(float(constants[name][index]))
            for name, at in group.readers.items()
            if _pads(model.get_submodule(name))
            for index in at[channel]
        ]
        least = min(values, default=0.0)
        if least > largest:
            best, largest = channel, least
    return best


def _pads(layer: Any) -> bool:
    """Whether a constant input may give other outputs near the border than elsewhere."""
    if isinstance(layer, nn.Linear):
        return False
    plain = type(layer).forward in {cls.forward for cls in _CONVOLUTIONS} and layer.padding_mode == "zeros"
    if not plain:
        return True
    none = layer.padding == "valid" or (not isinstance(layer.padding, str) and not any(layer.padding))
    return not none


def _column(layer: Any, index: int) -> Tensor:
    """What a layer multiplies an input channel with, ``[outputs, 1, *kernel]``; a view."""
    if isinstance(layer, nn.modules.conv._ConvTransposeNd):
        return layer.weight.data[index : index + 1].transpose(0, 1)
    return layer.weight.data[:, index : index + 1]


def _add_bias(layer: Any, values: Tensor) -> None:
    if layer.bias is None:
        layer.bias = nn.Parameter(torch.zeros_like(values))
    layer.bias.data += values.to(layer.bias)
