"""What every command line of the project does alike: plug-ins left out, overrides, errors in one line."""

from __future__ import annotations

import argparse
import functools
import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from contextvars import copy_context
from typing import Any

from pxframe.base.errors import PxframeError
from pxframe.plugin import host

Main = Callable[[Sequence[str] | None], int]


def add_common(parser: argparse.ArgumentParser) -> None:
    """``--no-plugin NAME``, for all commands."""
    parser.add_argument(
        "--no-plugin", metavar="NAME", action="append", default=[], help="leave a plug-in out (entry-point name)"
    )


def add_overrides(parser: argparse.ArgumentParser) -> None:
    """``--cfg-options k=v`` and ``--trust-checkpoint``, for commands that read a config."""
    parser.add_argument(
        "--cfg-options",
        metavar="K=V",
        nargs="+",
        action=_overrides(),
        default={},
        help="override config keys, e.g. tasks.digits.epochs=3",
    )
    parser.add_argument(
        "--trust-checkpoint",
        action="store_true",
        help="read checkpoints that hold more than tensors; doing so runs whatever code is in them",
    )


def start(args: argparse.Namespace) -> None:
    """Apply the common arguments, before any plug-in is loaded."""
    logging.getLogger("pxframe").setLevel(logging.ERROR)  # the commands print what it would say
    if args.no_plugin:
        host.block(args.no_plugin)
    if getattr(args, "trust_checkpoint", False):
        from pxframe.plugin.checkpoint import trust

        trust()


def choose_threads() -> int:
    """Set how many threads torch uses: one for each core that is free when the command starts; at least one.

    A layer waits for the slowest of its threads, so threads that share cores with other programs make a run many times
    slower. ``OMP_NUM_THREADS`` and ``MKL_NUM_THREADS`` go first: if either is set, nothing is changed.

    Returns:
        The number of threads in use.
    """
    import torch

    if "OMP_NUM_THREADS" in os.environ or "MKL_NUM_THREADS" in os.environ or not hasattr(os, "getloadavg"):
        return torch.get_num_threads()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # The load is the mean of the last minute. One is not counted: the installation that has just ended, usually.
    free = round(cores - max(0.0, os.getloadavg()[0] - 1))
    if max(1, free) < torch.get_num_threads():
        torch.set_num_threads(max(1, free))
    return torch.get_num_threads()


def one_line_errors(main: Main) -> Main:
    """Bad input costs the user one line and exit code 2; an interrupt one line and 130."""

    @functools.wraps(main)
    def wrapped(argv: Sequence[str] | None = None) -> int:
        warnings.showwarning = _show_warning
        signal.signal(signal.SIGTERM, _interrupt)
        try:
            return copy_context().run(main, argv)  # what a flag switches on ends with the command
        except PxframeError as error:
            print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print("stopped; the same command with --resume goes on from here", file=sys.stderr)
            return 130
        except BrokenPipeError:  # the reader of our output has gone, as `head` does
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 141

    return wrapped


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def _show_warning(message: Any, category: Any, filename: str, lineno: int, file: Any = None, line: Any = None) -> None:
    """Ours in one line; of the libraries' warnings a user can mend none, so they stay out of the way."""
    if issubclass(category, host.PluginWarning):
        print(f"warning: {message}", file=sys.stderr)


def _overrides() -> Any:
    from mmengine.config import DictAction

    return DictAction
