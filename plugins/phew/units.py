"""A network as a graph of units: channels of convolutions and features of linear maps, and the weights between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pxframe_plugins.phew.labels import NONE


@dataclass(frozen=True)
class Product:
    """Weights from the units of its input channels to units of its own, one an output channel.

    Attributes:
        name: the parameter, or the key in ``Units.constants`` of a kernel that is none.
        index: int tensor ``[groups, in, out, kernel]``: the place of each weight in the flattened parameter.
        sources: ``[2, pairs]``, pairs of a unit and an input channel (of all groups) that holds values of it.
        first: unit of the first output channel; the others follow it.
    """

    name: str
    index: Tensor
    sources: Tensor
    first: int


@dataclass(frozen=True)
class Join:
    """Units that hold values of several others, as after a residual addition: ``[2, pairs]``, (unit, joint unit)."""

    sources: Tensor


@dataclass
class Units:
    """A network's units, numbered from 0, and what lies between them, in order of execution."""

    count: int = 0
    inputs: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.long))
    outputs: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.long))
    operations: list[Product | Join] = field(default_factory=list)
    constants: dict[str, Tensor] = field(default_factory=dict)

    def fresh(self, number: int) -> Tensor:
        self.count += number
        return torch.arange(self.count - number, self.count)

    def joint(self, rows: Tensor, shape: Sequence[int]) -> Tensor:
        """A unit for each distinct set of units along the last dimension of ``rows``, expanded to ``shape``."""
        found, inverse = torch.unique(rows.reshape(-1, rows.shape[-1]).sort(-1).values, dim=0, return_inverse=True)
        repeated = torch.zeros_like(found, dtype=torch.bool)
        repeated[:, 1:] = found[:, 1:] == found[:, :-1]
        members = (found != NONE) & ~repeated
        units = found[:, -1].clone()  # the largest: the only one there is, or NONE
        several = members.sum(1) > 1
        if several.any():
            units[several] = self.fresh(int(several.sum()))
            row, column = (members & several[:, None]).nonzero(as_tuple=True)
            self.operations.append(Join(torch.stack([found[row, column], units[row]])))
        return units[inverse].reshape(rows.shape[:-1]).expand(shape)
