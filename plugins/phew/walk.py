"""Makes many random walks over a network's units at a time, from input to output or in reverse."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Generator, Tensor

from pxframe_plugins.phew.choice import Links, Rows
from pxframe_plugins.phew.units import Join, Product, Units


class Walks:
    """Random walks over a network. Their tables are built once.

    A walk passes from a unit to the next over a weight, which is drawn with a probability proportional to its
    magnitude. Where several operations read a unit (as before a residual branch), each is equally likely. In reverse,
    where a unit holds the sum of several units, each of these is equally likely. A walk never passes a weight of zero
    and never enters a unit from which no output (in reverse, no input) can be reached. So every walk is a complete path
    between an input unit and an output unit.

    Attributes:
        length: the largest number of steps that a walk can have.
        possible: whether the network has any path from an input unit to an output unit.
    """

    def __init__(self, units: Units, weights: Mapping[str, Tensor]) -> None:
        """Build the tables.

        Args:
            units: the network's graph of units.
            weights: all parameters by name, on the CPU. Pruned weights are zero.
        """
        operations, self.length = units.operations, len(units.operations)
        values = {**units.constants, **weights}

        def step(operation: Product | Join, forward: bool, alive: Tensor) -> _Joined | _Forward | _Reverse:
            if isinstance(operation, Join):
                return _Joined(operation, forward, alive)
            return (_Forward if forward else _Reverse)(operation, values[operation.name], alive)

        self._reverse, self._producer = [], torch.full((units.count,), self.length)
        reached = torch.zeros(units.count, dtype=torch.bool)
        reached[units.inputs] = True
        for number, operation in enumerate(operations):
            self._reverse.append(step(operation, False, reached))
            reached[self._reverse[-1].live] = True
            self._producer[self._reverse[-1].live] = number

        self._forward, consumed = [], [(units.outputs, self.length)]
        leading = torch.zeros(units.count, dtype=torch.bool)
        leading[units.outputs] = True
        for number, operation in reversed(list(enumerate(operations))):
            self._forward.append(step(operation, True, leading))
            leading[self._forward[-1].live] = True
            consumed.append((self._forward[-1].live, number))
        self._forward.reverse()
        users = torch.cat([torch.full_like(live, number) for live, number in consumed])
        self._consumers = Links(torch.cat([live for live, _ in consumed]), users, torch.ones(len(users)))
        self._inputs, self._outputs = units.inputs[leading[units.inputs]], units.outputs[reached[units.outputs]]
        self.possible = len(self._inputs) > 0 and len(self._outputs) > 0

    def walk(
        self, number: int, forward: bool, generator: Generator
    ) -> Iterator[tuple[int, Tensor, Tensor, str | None, Tensor | None]]:
        """Walk ``number`` times at once, each from an input unit drawn uniformly (in reverse, from an output unit).

        Yields:
            one tuple a step, in order: the number of the step; the numbers of the walks that make it, int64
            ``[walks]``; the units that they reach, ``[walks]``; the name of the weight that they pass, and its places
            in the flattened parameter, ``[walks]``. The last two are None where the step passes no weight (a join).
        """
        starts = self._inputs if forward else self._outputs
        units = starts[torch.randint(len(starts), (number,), generator=generator)]
        following = self._consumers.draw(units, generator) if forward else self._producer[units]
        for count in range(self.length):
            at = count if forward else self.length - 1 - count
            walks = (following == at).nonzero().squeeze(1)
            if len(walks):
                step = (self._forward if forward else self._reverse)[at]
                came_to, places = step.draw(units[walks], generator)
                units[walks] = came_to
                following[walks] = self._consumers.draw(came_to, generator) if forward else self._producer[came_to]
                yield count, walks, came_to, step.name, places


class _Joined:
    """A step to a joint unit; in reverse, from a joint unit to one of the units whose values it holds."""

    name = None

    def __init__(self, join: Join, forward: bool, alive: Tensor) -> None:
        source, target = join.sources if forward else join.sources.flip(0)
        self._links = Links(source, target, alive[target])
        self.live = self._links.live

    def draw(self, units: Tensor, generator: Generator) -> tuple[Tensor, None]:
        return self._links.draw(units, generator), None


class _Forward:
    """A step forward: from a unit over one weight of the input channels that hold its values."""

    def __init__(self, product: Product, values: Tensor, alive: Tensor) -> None:
        self.name, self._product = product.name, product
        groups, ins, outs, _ = product.index.shape
        leads = alive[product.first : product.first + groups * outs].view(groups, 1, outs, 1)
        self._rows = Rows((_magnitudes(product, values) * leads).contiguous().view(groups * ins, -1))
        units, channels = product.sources
        self._links = Links(units, channels, self._rows.totals[channels])
        self.live = self._links.live

    def draw(self, units: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        _, ins, outs, kernel = self._product.index.shape
        channel = self._links.draw(units, generator)
        column = self._rows.draw(channel, generator)
        group, out = channel // ins, column // kernel
        places = self._product.index[group, channel % ins, out, column % kernel]
        return self._product.first + group * outs + out, places.long()


class _Reverse:
    """A step in reverse: from an output channel's unit over one of the channel's weights.

    It ends at a unit that has values in the weight's input channel.
    """

    def __init__(self, product: Product, values: Tensor, alive: Tensor) -> None:
        self.name, self._product = product.name, product
        groups, ins, outs, _ = product.index.shape
        units, channels = product.sources
        self._links = Links(channels, units, alive[units])
        fed = torch.zeros(groups * ins, dtype=torch.bool)
        fed[self._links.live] = True
        magnitudes = (_magnitudes(product, values) * fed.view(groups, ins, 1, 1)).transpose(1, 2).contiguous()
        self._rows = Rows(magnitudes.view(groups * outs, -1))
        self.live = product.first + self._rows.totals.nonzero().squeeze(1)

    def draw(self, units: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        _, ins, outs, kernel = self._product.index.shape
        row = units - self._product.first
        column = self._rows.draw(row, generator)
        group, channel = row // outs, column // kernel
        places = self._product.index[group, channel, row % outs, column % kernel]
        return self._links.draw(group * ins + channel, generator), places.long()


def _magnitudes(product: Product, values: Tensor) -> Tensor:
    """The magnitudes of a product's weights, float64 ``[groups, in, out, kernel]``."""
    return values.detach().flatten()[product.index].double().abs_()
