"""Whether a slimmed network still gives what it gave before."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pxframe.base.errors import PxframeError
from pxframe.running.outputs import apart, outputs
from pxframe.slimming.choices import Choice, Choices, OtherOperations
from pxframe.slimming.groups import Graph


class _Run(NamedTuple):
    outputs: list[Tensor]
    ends: list[Tensor]
    choices: list[Choice]


class Wanted:
    """What a network gives for some batches, for others to be compared with.

    The outputs of most networks are numbers, and they are compared. Outputs that are integers, or empty, are picked
    among other numbers, as the boxes of a detector are: there may be none for these batches, and where two scores are
    nearly equal, rounding decides. Such a network is compared in three things: the outputs of its last layers, the
    numbers that it picks from, and its outputs if the same are picked.

    Args:
        model: in eval mode.
        batches: inputs of the model.
        ends: :attr:`ends` for other batches of the same model, which takes a while to find.

    Attributes:
        ends: names of the layers whose outputs are compared; None where the model's outputs are enough.

    Raises:
        PxframeError: the model cannot be called with them, or gives no tensor.
    """

    def __init__(self, model: nn.Module, batches: Sequence[Any], ends: list[str] | None = None) -> None:
        self._batches = batches
        try:
            found = [outputs(model, batch) for batch in batches]
        except (PxframeError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # whatever a model says of inputs that it does not take
            reason = str(error).strip().partition("\n")[0]
            raise PxframeError(
                f"the model cannot be called with the example ({type(error).__name__}: {reason}); give one tensor, or "
                f"a tuple or dict of arguments: ([image],) for a model that takes a list of images"
            ) from error
        self.ends = ends
        if ends is None and any(not x.is_floating_point() or not x.numel() for one in found for x in one):
            self.ends = Graph(model, batches[0]).ends()
        if self.ends is None:
            self._runs = [_Run(one, [], []) for one in found]
        else:
            self._runs = [_run(model, batch, self.ends, None) for batch in batches]

    def difference(self, model: nn.Module) -> float:
        """The largest difference of a model's outputs, relative to the largest of these, over all batches.

        Numbers that outputs are picked from are taken relative to the largest of their layer or operation. The
        difference is infinite if shapes differ, and for NaN.
        """
        worst = 0.0
        for batch, wanted in zip(self._batches, self._runs, strict=True):
            try:
                if self.ends is None:
                    given = _Run(outputs(model, batch), [], [])
                else:
                    given = _run(model, batch, self.ends, wanted.choices)
            except OtherOperations:
                return math.inf
            worst = max([worst, apart(wanted.outputs, given.outputs), *_apart_before(wanted, given)])
        return worst


def _apart_before(wanted: _Run, given: _Run) -> list[float]:
    """Differences of what outputs are picked from. Choices of other shapes concern channels that are gone."""
    if len(wanted.ends) != len(given.ends) or len(wanted.choices) != len(given.choices):
        return [math.inf]
    found = [apart([x], [y]) for x, y in zip(wanted.ends, given.ends, strict=True)]
    for one, other in zip(wanted.choices, given.choices, strict=True):
        if [x.shape for x in one.made] == [x.shape for x in other.made]:
            found += [apart([x], [y]) for x, y in zip(one.read, other.read, strict=True)]
    return found


def _run(model: nn.Module, batch: Any, ends: Sequence[str], given: Sequence[Choice] | None) -> _Run:
    kept: list[Tensor] = []

    def note(module: nn.Module, args: Any, output: Tensor) -> None:
        kept.append(output.clone())  # the next layer may work in place

    with ExitStack() as stack:
        for name in ends:
            stack.callback(model.get_submodule(name).register_forward_hook(note).remove)
        with Choices(given) as choices:
            found = outputs(model, batch)
    return _Run(found, kept, choices.noted)
