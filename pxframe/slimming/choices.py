"""The choices that a network makes among its numbers: which scores are above a threshold, how boxes are sorted.

Two networks that differ by rounding alone may choose differently where two numbers are nearly equal, and all that
follows is then something else. So the choices of one network are noted, and the other is run with the same ones. What
they are made from is noted as well: the proof needs both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from pxframe.running.inputs import leaves, mapped


@dataclass(frozen=True)
class Choice:
    """An operation that reads floating-point numbers and gives integers or booleans.

    Attributes:
        operation: its name.
        read: the numbers that it reads.
        made: what it chose.
    """

    operation: str
    read: list[Tensor]
    made: list[Tensor]


class OtherOperations(Exception):
    """The network with the given choices does not ask for them in the same order."""


class Choices(TorchDispatchMode):
    """Inside the block, choices are noted in ``noted``.

    Args:
        given: choices of another network, to be made again. Those of another shape are left to the network: the gates
            of channels that it does not have, for example.
    """

    def __init__(self, given: Sequence[Choice] | None = None) -> None:
        super().__init__()
        self.noted: list[Choice] = []
        self._given = given

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        made = [tensor for tensor in leaves(output) if _is_choice(tensor)]
        if not made or "pool" in func.name():  # the places that pooling gives serve its gradient
            return output
        read = [tensor for tensor in leaves((args, kwargs or {})) if tensor.is_floating_point()]
        if not read:
            return output
        choice = Choice(func.name(), [x.clone() for x in read], [x.clone() for x in made])
        self.noted.append(choice)
        if self._given is None:
            return output
        place = len(self.noted) - 1
        if place >= len(self._given) or self._given[place].operation != choice.operation:
            raise OtherOperations
        others = self._given[place].made
        if [x.shape for x in others] != [x.shape for x in made]:
            return output
        queue = iter(others)
        return mapped(lambda tensor: next(queue).clone() if _is_choice(tensor) else tensor, output)


def _is_choice(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() and not tensor.is_complex()
