"""Several processes that do one job together, the ranks of torch.distributed: what each does, and what it tells others.

In a single process every function here does what it says for one rank: it does the work, and gives back what it was
given. Only this file talks to torch.distributed. A function that speaks of "every rank" must be called by all of them,
in the same order, for each waits for the others.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from pxframe.base.errors import PxframeError, blaming

if TYPE_CHECKING:  # torch takes seconds to import, and a process that has not imported it has no ranks
    from torch import Tensor

T = TypeVar("T")

#: A rank may wait this long for another that does long work alone. One that has died is noticed at once.
_PATIENCE = timedelta(days=7)
#: torchrun starts all processes at about the same time, so the place where they meet is there soon, or never.
_MEETING = timedelta(minutes=5)
#: Where ranks that :func:`join` brought together leave notes; it outlives each of them.
_store: Any = None
#: The rank that :func:`join` read from the environment: known before the ranks have met, and after they have parted.
_number = 0


def size() -> int:
    """How many ranks there are."""
    dist = _dist()
    return dist.get_world_size() if dist is not None else 1


def rank() -> int:
    """The number of this rank, from 0."""
    dist = _dist()
    return dist.get_rank() if dist is not None else 0


def is_main() -> bool:
    """Whether this is rank 0: the one that decides, writes files and prints."""
    return rank() == 0


def broadcast_object(value: T) -> T:
    """What rank 0 gives, on every rank."""
    dist = _dist()
    if dist is None:
        return value
    told: list[Any] = [value if is_main() else None]
    dist.broadcast_object_list(told, src=0)
    return told[0]


def broadcast_tensors(tensors: dict[str, Tensor]) -> None:
    """Overwrite the tensors of every rank by those of rank 0; they have the same names, shapes and types on all."""
    dist = _dist()
    for name in sorted(tensors) if dist is not None else ():
        tensor = tensors[name].detach()
        sent = tensor.contiguous()
        dist.broadcast(sent, src=0)
        if sent is not tensor:
            tensor.copy_(sent)


def summed(tensor: Tensor) -> Tensor:
    """The sum of every rank's tensor, as a new tensor; all ranks get the same bits."""
    total = tensor.detach().clone(memory_format=_contiguous())
    dist = _dist()
    if dist is not None:
        dist.all_reduce(total)
    return total


def gathered(tensor: Tensor) -> list[Tensor]:
    """Every rank's tensor, in the order of the ranks; they have the same shape and type."""
    dist = _dist()
    if dist is None:
        return [tensor]
    mine = tensor.detach().contiguous()
    found = [mine.new_empty(mine.shape) for _ in range(size())]
    dist.all_gather(found, mine)
    return found


def gathered_objects(value: T) -> list[T]:
    """Every rank's value, in the order of the ranks."""
    dist = _dist()
    if dist is None:
        return [value]
    found: list[Any] = [None] * size()
    dist.all_gather_object(found, value)
    return found


def collected(rows: Tensor, total: int) -> Tensor:
    """The rows that were dealt to the ranks in turn, in their order; what was dealt twice to fill up is left out.

    Args:
        rows: those of this rank, ``[N, ...]``, N being the same on every rank.
        total: how many there are.
    """
    import torch

    return torch.stack(gathered_objects(rows), dim=1).flatten(0, 1)[:total] if size() > 1 else rows


def by_first(work: Callable[[], T]) -> T:
    """Let rank 0 do ``work`` while the others wait, and give every rank the result: for files, and decisions on them.

    Raises:
        PxframeError: the work failed; ranks but the first raise its message, with ``rank 0`` in front.
    """
    return _told(work) if is_main() else _told(None)


def from_first(work: Callable[[], T]) -> T:
    """Do ``work`` on every rank, and give every rank what rank 0 made of it.

    The ranks may see other data, and floating-point sums need not agree to the last bit, so results may differ. A
    failure of another rank than the first does not matter: ``work`` must not wait for other ranks.

    Raises:
        PxframeError: the work failed on rank 0; other ranks raise its message, with ``rank 0`` in front.
    """
    return _told(work)


def _told(work: Callable[[], T] | None) -> T:
    dist = _dist()
    if dist is None:
        assert work is not None
        return work()
    result: T | None = None
    failure: Exception | None = None
    try:
        result = work() if work is not None else None
    except Exception as error:  # the other ranks would wait for a result that never comes
        failure = error
    told = broadcast_object((result, None if failure is None else str(failure)))
    if is_main():
        if failure is not None:
            raise failure
        return result  # type: ignore[return-value]
    result, message = told
    if message is not None:
        raise PxframeError(f"rank 0: {message}")
    return result  # type: ignore[return-value]


# --- processes that a launcher started ---


def join(device: str) -> None:
    """Meet the other processes that torchrun started.

    Args:
        device: ``"cpu"``, or ``"cuda:N"``, a GPU that is this process's own.

    Raises:
        PxframeError: the environment does not say where the others are, or they cannot be reached there.
    """
    global _store, _number
    import torch
    import torch.distributed as dist

    with blaming("cannot meet the other processes that torchrun started"):
        store, _number, count = next(iter(dist.rendezvous("env://", timeout=_MEETING)))
        _store = dist.PrefixStore("notes", store)
        backend = "gloo"
        if device.startswith("cuda"):
            backend = "nccl"
            torch.cuda.set_device(device)
        group = dist.PrefixStore("group", store)
        dist.init_process_group(backend, store=group, rank=_number, world_size=count, timeout=_PATIENCE)


def leave() -> None:
    """End what :func:`join` began, when the work is done on every rank."""
    global _store
    dist = _dist()
    if dist is not None and _store is not None:
        dist.barrier()
        dist.destroy_process_group()
    _store = None


def joined() -> bool:
    """Whether this process has found in :func:`join` where the ranks leave notes, if not the ranks themselves."""
    return _store is not None


def first_to_tell() -> bool:
    """Whether this rank is the first to say why the job ends; the others end for the same reason, or because of it."""
    try:
        return _store is None or _store.add("told", 1) == 1
    except Exception:  # the launcher or rank 0, which keeps the notes, has ended as well
        return _number == 0


def lost(error: BaseException | None) -> bool:
    """Whether ``error`` says that another rank has gone in the middle of the work."""
    if size() == 1:
        return False
    while error is not None:
        text = str(error)
        if isinstance(error, RuntimeError) and ("gloo" in text or "NCCL" in text or "Connection closed" in text):
            return True
        error = error.__cause__ or error.__context__
    return False


def _dist() -> Any:
    """torch.distributed where there is more than one rank, else None."""
    dist: Any = sys.modules.get("torch.distributed")
    there = dist is not None and dist.is_available() and dist.is_initialized()
    return dist if there and dist.get_world_size() > 1 else None


def _contiguous() -> Any:
    import torch

    return torch.contiguous_format
