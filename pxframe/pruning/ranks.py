"""One result on all ranks of torch.distributed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch.distributed as dist

from pxframe.base.errors import PxframeError

T = TypeVar("T")


def from_first_rank(work: Callable[[], T]) -> T:
    """Do ``work`` on every rank and return what rank 0 made of it. A single process just does the work.

    The ranks see other data, and floating-point sums need not agree to the last bit, so results may differ. Every rank
    must call this, for it waits for rank 0.

    Raises:
        PxframeError: the work failed on rank 0; all ranks raise its message.
    """
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return work()
    first = dist.get_rank() == 0
    result: T | None = None
    failure: Exception | None = None
    try:
        result = work()
    except Exception as error:  # the other ranks would wait for a result that never comes
        failure = error
    told: list[Any] = [(result, None if failure is None else f"{failure}")] if first else [None]
    dist.broadcast_object_list(told, src=0)
    if first and failure is not None:
        raise failure
    result, message = told[0]
    if message is not None:
        raise PxframeError(f"rank 0: {message}")
    return result
