"""The data that scorers read: any iterable of pairs, read once and replayed; the forms of an input are in base."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch

from pxframe.base.devices import held_for
from pxframe.base.errors import PxframeError
from pxframe.base.inputs import check_inputs, mapped


class Batches:
    """Any iterable of ``(input, target)`` pairs, read as far as asked for, once, and replayed in the same order.

    A one-shot iterator serves any number of rounds, and every round sees the same data: each pass hands out copies, so
    a scorer or a model that writes into a batch changes neither the next pass nor the caller's tensors. For a GPU the
    data stay in the computer's memory, and each pass sends the copies over: they may be more than the GPU can hold.
    """

    def __init__(self, source: Iterable[Any] | None, device: torch.device) -> None:
        if source is not None and not isinstance(source, Iterable):
            raise PxframeError(f"'batches' must be an iterable of (input, target) pairs, got {type(source).__name__}")
        self._given = source if source is not None else ()
        self._source: Iterator[Any] | None = None
        self._seen: list[tuple[Any, Any]] = []
        self._device = device

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
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
            yield self._copied(self._seen[at])
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
