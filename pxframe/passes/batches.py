"""The data that scorers read: any iterable of pairs, read once and replayed; the forms of an input are in base."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple

import torch

from pxframe.base import ranks
from pxframe.base.devices import held_for
from pxframe.base.errors import PxframeError
from pxframe.running.inputs import check_inputs, mapped


class Turn(NamedTuple):
    """As many batches, one after the other, as there are ranks to compute with them."""

    #: Number of this rank's own batch, from 0.
    number: int
    #: This rank's own, or None where the data have ended.
    batch: tuple[Any, Any] | None
    #: How many ranks have one.
    taken: int


class Batches:
    """Any iterable of ``(input, target)`` pairs, read as far as asked for, once, and replayed in the same order.

    A one-shot iterator serves any number of rounds, and every round sees the same data: each pass hands out copies, so
    a scorer or a model that writes into a batch changes neither the next pass nor the caller's tensors. For a GPU the
    data stay in the computer's memory, and each pass sends the copies over: they may be more than the GPU can hold.

    Args:
        shared: every rank of torch.distributed is given the same batches. What sums over all of them may then take each
            rank's share: see :func:`dealt`.
    """

    def __init__(self, source: Iterable[Any] | None, device: torch.device, shared: bool = False) -> None:
        if source is not None and not isinstance(source, Iterable):
            raise PxframeError(f"'batches' must be an iterable of (input, target) pairs, got {type(source).__name__}")
        self._given = source if source is not None else ()
        self._source: Iterator[Any] | None = None
        self._seen: list[tuple[Any, Any]] = []
        self._device = device
        self.shared = shared and ranks.size() > 1

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        return map(self._copied, self._pairs())

    def turns(self) -> Iterator[Turn]:
        """The batches dealt to the ranks in turn; not shared, each of them is a turn of this rank's."""
        own, of = (ranks.rank(), ranks.size()) if self.shared else (0, 1)
        pairs = self._pairs()
        first = 0
        while turn := list(islice(pairs, of)):
            mine = self._copied(turn[own]) if own < len(turn) else None
            yield Turn(first + own, mine, len(turn))
            first += len(turn)

    def _pairs(self) -> Iterator[tuple[Any, Any]]:
        if self._source is None:  # not before it is read: a shuffling loader draws its order here
            self._source = iter(self._given)
        at = 0
        while True:
            if at == len(self._seen):
                try:
                    batch = next(self._source)
                except StopIteration:
                    return
                self._seen.append(self._pair(batch, at))
            yield self._seen[at]
            at += 1

    def first(self) -> tuple[Any, Any] | None:
        """The first pair, or None where there is no data."""
        return next(iter(self), None)

    def _pair(self, batch: Any, at: int) -> tuple[Any, Any]:
        if not (isinstance(batch, (tuple, list)) and len(batch) == 2):
            is_flat = isinstance(batch, (tuple, list)) and len(batch) > 2
            several = f" of {len(batch)}; put several inputs into a tuple of their own" if is_flat else ""
            raise PxframeError(
                f"batch {at}: 'batches' must give (input, target) pairs, got {type(batch).__name__}{several}"
            )
        inputs, targets = batch
        check_inputs(inputs, f"batch {at}")
        return mapped(lambda t: held_for(t, self._device), inputs), mapped(lambda t: held_for(t, self._device), targets)

    def _copied(self, pair: tuple[Any, Any]) -> tuple[Any, Any]:
        return mapped(lambda t: t.to(self._device, non_blocking=True, copy=True), pair)


def dealt(batches: Iterable[tuple[Any, Any]]) -> tuple[Iterator[Turn], bool]:
    """``batches`` in turns, and whether the ranks share them. Those in a list, say, a scorer chose, for every rank."""
    if isinstance(batches, Batches):
        return batches.turns(), batches.shared
    return (Turn(number, batch, 1) for number, batch in enumerate(batches)), False
