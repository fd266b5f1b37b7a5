"""Slimming: the channels that carry nothing are taken out, and what is left is compared with the masked network."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from pxframe.base.errors import PxframeError, some
from pxframe.running.inputs import noise_like
from pxframe.running.outputs import TOLERANCE
from pxframe.running.undisturbed import copied
from pxframe.scoring.precision import full_precision
from pxframe.slimming.compare import Wanted
from pxframe.slimming.constant import constants
from pxframe.slimming.fold import Idle, find_idle, fold
from pxframe.slimming.groups import LAYERS, Graph, Group, load_torch_pruning, outputs_of, weight_of
from pxframe.slimming.heads import attentions
from pxframe.slimming.marks import mark, unmark
from pxframe.slimming.wide import restore, widen
from pxframe.ticket.ticket import Ticket

_log = logging.getLogger(__name__)


@dataclass
class Slim:
    """A slimmed network.

    Attributes:
        model: with fewer channels, otherwise like the model that it was made from.
        channels: outputs of each layer that has fewer, before and after, by name.
        whole: layers whose channels could not be taken out though nothing is left of some of them, and why.
        error: the largest difference between its outputs and the masked network's, relative to the largest output.
    """

    model: nn.Module
    channels: dict[str, tuple[int, int]]
    whole: dict[str, str]
    error: float


def slim(model: nn.Module, ticket: Ticket, example: Any) -> Slim:
    """Take out the channels and attention heads that a ticket leaves nothing of. ``model`` itself is not changed.

    A channel is removed if every layer that reads it multiplies it by zero, or if zeros cut it off from the input, so
    that it always has the same value. What that value adds goes into the biases of the next layers. In front of
    convolutions that pad with zeros a bias would be wrong near the border; there, channels with a value other than zero
    are merged into one that stays. Weights that the ticket keeps count as kept although they may be zero, as those of a
    new head.

    Args:
        model: what the ticket was made from, or a model that contains it; it may have been trained after that.
        ticket: its masks are applied.
        example: inputs of the model, as for :func:`pxframe.prune`; the first dimension is the batch.

    Returns:
        the small network, in the modes (train or eval) and dtypes of ``model``. Half precision is slimmed in float32.

    Raises:
        PxframeError: Torch-Pruning is missing or cannot read the model, or the outputs would differ from those of the
            masked network, in eval mode, by more than 1e-5 of the largest.
    """
    found = slimmed(model, ticket, example)
    if found.whole:
        reasons = some([f"{name} ({why})" for name, why in found.whole.items()])
        _log.warning("slim: nothing is left of some channels that stay, since they cannot be taken out: %s", reasons)
    return found


def slimmed(model: nn.Module, ticket: Ticket, example: Any) -> Slim:
    """As :func:`slim`, without a warning."""
    load_torch_pruning()
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    with full_precision(device):  # a GPU's usual float32 of convolutions has only ten bits
        return _slimmed(model, ticket, example)


def _slimmed(model: nn.Module, ticket: Ticket, example: Any) -> Slim:
    masked = copied(model).eval().requires_grad_()
    example = widen(masked, example)
    marked = copied(masked)
    mark(marked)
    for network in (masked, marked):
        ticket.apply(network)
    work = _Work(masked, marked, [example, *_noise(example, (0, 1))])
    while work.heads() or work.channels():
        pass
    unmark(work.small)
    fresh = [example, *_noise(example, (2, 3))]
    error = Wanted(masked, fresh, work.wanted.ends).difference(work.small)
    if not error <= TOLERANCE:
        raise PxframeError(
            f"the slim network's outputs differ from those of the masked one by {error:.1e} of the largest; "
            f"nothing was changed: slim a part of the model instead, such as model.backbone"
        )
    restore(work.small, model)
    return Slim(work.small, _fewer(masked, work.small), work.whole, error)


class _Work:
    """The network as far as it has been slimmed."""

    def __init__(self, masked: nn.Module, marked: nn.Module, batches: list[Any]) -> None:
        self.small = marked
        self.whole: dict[str, str] = {}
        self._batches = batches
        self.wanted = Wanted(masked, batches)

    def heads(self) -> bool:
        """Take out idle heads of one attention module; false if there are none."""
        for attention in attentions(self.small):
            idle = [] if attention.name in self.whole else attention.idle()
            if not idle:
                continue

            def take(trial: nn.Module, name: str = attention.name, idle: list[int] = idle) -> None:
                next(found for found in attentions(trial) if found.name == name).remove(idle)

            self._try(attention.name, take)
            return True
        return False

    def channels(self) -> bool:
        """Take out what can be taken out now, of all groups; false if there is nothing. More may be found after it."""
        graph = Graph(self.small, self._batches[0])
        groups = [group for group in graph.groups() if group.root not in self.whole]
        of_heads = {f"{found.name}.qkv" for found in attentions(self.small)}
        for group in groups:
            group.whole = "an attention head goes as a whole" if group.root in of_heads else group.whole
        read = constants(self.small, sorted({name for group in groups for name in group.readers}), self._batches)
        found = [find_idle(group, self.small, read) for group in groups if not group.whole]
        todo = [idle for idle in found if idle.channels]
        if not todo:
            self._name_left(graph, groups)
        if not todo or self._same(lambda trial: self._take(trial, read, todo)):
            return bool(todo)
        for one in todo:  # some group is not what it seems
            self._try(one.group.root, lambda trial, one=one: self._take(trial, read, [one]))  # type: ignore[misc]
        return True

    def _name_left(self, graph: Graph, groups: Sequence[Group]) -> None:
        """Say of what layers some outputs stay though they have no weights left, and why. One may carry for others."""
        for name in dict.fromkeys([*graph.lost, *(name for group in groups for name in group.makers)]):
            followed = {index for group in groups for indices in group.makers.get(name, ()) for index in indices}
            empty = ~weight_of(self.small.get_submodule(name)).flatten(1).any(1)
            if not followed.issuperset(empty.nonzero().flatten().tolist()):
                self.whole[name] = "its channels are picked or reshaped in a way that Torch-Pruning does not follow"
        for group in groups:
            if len(group.emptied(self.small)) > (0 if group.whole else 1):
                readers = some(list(group.readers), 1)
                self.whole[group.root] = group.whole or f"what {readers} reads there changes with the input"

    def _take(self, model: nn.Module, read: Mapping[str, torch.Tensor], todo: Sequence[Idle]) -> None:
        for idle in todo:
            fold(idle, model, read)
        graph = Graph(model, self._batches[0])
        for idle in todo:
            graph.remove(idle.group, idle.channels)

    def _try(self, name: str, take: Callable[[nn.Module], None]) -> None:
        if not self._same(take):
            self.whole[name] = "without them the outputs would be others: they are used in a way that is not seen"

    def _same(self, take: Callable[[nn.Module], None]) -> bool:
        """Make a change to the small network if the outputs stay the same."""
        trial = copied(self.small)
        try:
            take(trial)
            same = self.wanted.difference(trial) <= TOLERANCE
        except torch.OutOfMemoryError:
            raise
        except Exception:  # what does not run without these channels needs them
            return False
        if same:
            self.small = trial
        return same


def _noise(example: Any, seeds: Iterable[int]) -> list[Any]:
    return [noise_like(example, torch.Generator().manual_seed(seed)) for seed in seeds]


def _fewer(before: nn.Module, after: nn.Module) -> dict[str, tuple[int, int]]:
    found = {}
    for name, module in before.named_modules():
        if isinstance(module, LAYERS):
            sizes = [outputs_of(network.get_submodule(name)) for network in (before, after)]
            if sizes[0] != sizes[1]:
                found[name] = sizes[0], sizes[1]
    return found
