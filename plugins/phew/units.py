"""A network as a graph of units (channels of convolutions, features of linear layers) and the weights between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pxframe_plugins.phew.labels import NONE


@dataclass(frozen=True)
class Product:
    """The weights of a convolution or linear layer. They lead from the units of its input to one new unit a channel.

    Attributes:
        name: name of the parameter; of a kernel that is not a parameter, its key in ``Units.constants``.
        index: int32 ``[groups, in, out, kernel]``, the place of each weight in the flattened parameter.
        sources: int64 ``[2, pairs]``. Each pair is a unit and an input channel that holds values of this unit. Input
            channels are numbered over all groups.
        first: the unit of the first output channel. Those of the other output channels follow in order.
    """

    name: str
    index: Tensor
    sources: Tensor
    first: int


@dataclass(frozen=True)
class Join:
    """Joint units: they hold values of several other units, as after a residual addition.

    Attributes:
        sources: int64 ``[2, pairs]``, pairs of a unit and a joint unit that holds values of it.
    """

    sources: Tensor


@dataclass
class Units:
    """The graph of a network's units.

    Attributes:
        count: number of units. They are numbered from 0.
        inputs: int64, the units of the network's input.
        outputs: int64, the units of the network's outputs.
        operations: the products and joins between units, in the order of execution.
        constants: kernels that are not parameters, by name.
    """

    count: int = 0
    inputs: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.long))
    outputs: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.long))
    operations: list[Product | Join] = field(default_factory=list)
    constants: dict[str, Tensor] = field(default_factory=dict)

    def fresh(self, number: int) -> Tensor:
        """Add ``number`` new units, and give them; int64 ``[number]``."""
        self.count += number
        return torch.arange(self.count - number, self.count)

    def joint(self, rows: Tensor, shape: Sequence[int]) -> Tensor:
        """Join the units along the last dimension of ``rows``; the result is expanded to ``shape``.

        Rows with the same set of units get the same joint unit. A set of one unit stays this unit.
        """
        found, inverse = torch.unique(rows.reshape(-1, rows.shape[-1]).sort(-1).values, dim=0, return_inverse=True)
        repeated = torch.zeros_like(found, dtype=torch.bool)
        repeated[:, 1:] = found[:, 1:] == found[:, :-1]
        members = (found != NONE) & ~repeated
        units = found[:, -1].clone()  # the largest label: it is right where a row has one unit or none
        several = members.sum(1) > 1
        if several.any():
            units[several] = self.fresh(int(several.sum()))
            row, column = (members & several[:, None]).nonzero(as_tuple=True)
            self.operations.append(Join(torch.stack([found[row, column], units[row]])))
        return units[inverse].reshape(rows.shape[:-1]).expand(shape)
