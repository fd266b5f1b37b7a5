"""A command in several processes: ``torchrun --nproc-per-node N tools/transfer.py CONFIG``.

Rank 0 speaks for all. When the work cannot go on, one process says why, in one line, and all of them end.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from typing import Any

from pxframe.base import ranks
from pxframe.base.errors import PxframeError

#: How long other ranks than the first wait before they say why the job ends. What is wrong for all, rank 0 tells.
_GRACE = 1.0
#: What torchrun tells each process of its place among the others.
_PLACE = ("RANK", "LOCAL_RANK", "WORLD_SIZE")


def count() -> int:
    """How many processes torchrun started; 1 without it."""
    return int(os.environ["WORLD_SIZE"]) if all(name in os.environ for name in _PLACE) else 1


def number() -> int:
    """The number of this process, from 0."""
    return int(os.environ["RANK"]) if count() > 1 else 0


def check_alone(what: str) -> None:
    """Refuse to be one of several processes.

    Args:
        what: cannot be shared; the beginning of the message, with its verb.

    Raises:
        PxframeError: torchrun started several.
    """
    if count() > 1:
        raise PxframeError(f"{what}: start it without torchrun")


@contextmanager
def first_speaks() -> Iterator[None]:
    """Inside the block, other processes than the first print nothing, not even what is wrong."""
    with ExitStack() as stack:
        if number():
            nowhere = stack.enter_context(open(os.devnull, "w"))
            stack.enter_context(redirect_stdout(nowhere))
            stack.enter_context(redirect_stderr(nowhere))
        yield


def hushed() -> None:
    """Let other processes than the first print nothing from now on, but for why the job ends: :func:`tell`."""
    if count() > 1:  # torch reads it when it is imported; its warnings on what is meant are of no use to a user
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    if number():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (to the end of the process)


def met(device: str) -> str:
    """Meet the other processes, and give the device of this one.

    Raises:
        PxframeError: ``device`` names one GPU, there are fewer GPUs than processes, or the others cannot be reached.
    """
    if count() == 1:
        return device
    own = device
    if device.startswith("cuda"):
        if ":" in device:
            raise PxframeError(f"--device {device}: each process of torchrun has a GPU of its own; write --device cuda")
        import torch

        there, wanted = torch.cuda.device_count(), int(os.environ.get("LOCAL_WORLD_SIZE", count()))
        if there < wanted:
            raise PxframeError(f"--device cuda: {wanted} processes need {wanted} GPUs, and torch sees {there}")
        own = f"cuda:{os.environ['LOCAL_RANK']}"
    with _ended_by_signals():
        ranks.join(own)
    return own


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Inside the block, Ctrl-C and SIGTERM end the process at once, without a word.

    Python's own handlers run when torch returns to Python, and while it waits for other processes it does not.
    """
    before = {how: signal.signal(how, signal.SIG_DFL) for how in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for how, handler in before.items():
            signal.signal(how, handler)


def check_agreed(arguments: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Refuse processes that were given different jobs; every one of them must call this.

    Args:
        arguments: of the command line, by name.
        config: values of the config, by key.

    Raises:
        PxframeError: names what is different, and the first process for which it is.
    """
    mine = {f"--{name.replace('_', '-')}": repr(value) for name, value in arguments.items()}
    mine |= {f"{key!r} in the config": repr(value) for key, value in config.items()}
    first, *others = ranks.gathered_objects(mine)
    for rank, other in enumerate(others, start=1):
        for what, value in first.items():
            if other.get(what) != value:
                raise PxframeError(
                    f"{what} is another for rank {rank} than for rank 0; start all with the same command"
                )


def tell(line: str) -> None:
    """Print why the job ends on stderr, unless another process has told."""
    if told_by_me():
        print(line, file=sys.stderr, flush=True)


def told_by_me() -> bool:
    """Whether this process is the one that says why the job ends."""
    if count() > 1:  # the launcher ends all processes when it sees one end
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if number():
        time.sleep(_GRACE)
        return ranks.joined() and ranks.first_to_tell()
    return ranks.first_to_tell()


def ended(code: int) -> int:
    """``code``; of several processes each ends at once, as closing the connections may wait for one that is gone."""
    if count() > 1 and code:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def named(text: str) -> str:
    """``text`` with the process that it comes from in front, unless that is the first."""
    return f"rank {number()}: {text}" if number() and not text.startswith("rank 0: ") else text
