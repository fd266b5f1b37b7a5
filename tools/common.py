"""What every command does alike: plug-ins left out, overrides, errors in one line, signals."""

from __future__ import annotations

import argparse
import errno
import functools
import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextvars import copy_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pxframe.base import ranks
from pxframe.base.errors import PluginWarning, PxframeError, printable
from pxframe_tools import processes

if TYPE_CHECKING:  # torch takes seconds to import: a command with a mistake in it must not wait for it
    from rich.table import Table

    from pxframe.job.config import JobConfig
    from pxframe.job.job import Job

Main = Callable[[Sequence[str] | None], int]

#: What the operating system may refuse while files are written; a user can mend it.
_REFUSED = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EMFILE)
_LOST = "another process of this job has ended; the same command with --resume goes on from the last checkpoint"


def add_common(parser: argparse.ArgumentParser) -> None:
    """``--no-plugin NAME``, for all commands."""
    parser.add_argument(
        "--no-plugin",
        metavar="NAME",
        action="append",
        default=[],
        help="do not load this plug-in (name of its entry point)",
    )


def add_job_arguments(parser: argparse.ArgumentParser, *, shares: bool = False) -> None:
    """The arguments of commands that run a job.

    Args:
        shares: several processes, which torchrun starts, can do the command's work together.
    """
    parser.set_defaults(shares=shares)
    parser.add_argument("config", metavar="CONFIG", help="a job's config file, e.g. configs/quickstart.py")
    parser.add_argument("--work-dir", metavar="D", help="folder for all files; default: the config's work_dir")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="keep what is finished in the work dir, and run only what is new or changed",
    )
    parser.add_argument(
        "--device",
        metavar="D",
        default="cpu",
        help="cpu, cuda or cuda:N, to prune and train on; default: cpu. Under torchrun, cuda is a GPU for each process",
    )
    parser.add_argument(
        "--cfg-options",
        metavar="K=V",
        nargs="+",
        action=_Overrides,
        default={},
        help="override config keys, e.g. tasks.digits.epochs=3",
    )
    parser.add_argument(
        "--trust-checkpoint",
        action="store_true",
        help="read checkpoints that hold more than tensors; doing so runs whatever code is in them",
    )
    add_common(parser)


def parsed(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """The arguments as ``parser`` reads them. Of an option that is a key of a config, an error says where it goes.

    Raises:
        PxframeError: torchrun started a command that works in one process; see :func:`add_job_arguments`.
    """
    with processes.first_speaks():
        args = _parsed(parser, argv)
    if not getattr(args, "shares", False):
        processes.check_alone("this command works in one process")
    return args


def _parsed(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    args, unknown = parser.parse_known_args(argv)
    if unknown:
        from dataclasses import fields

        from pxframe.job.config import Prune

        key, given, value = unknown[0].lstrip("-").partition("=")
        key = key.replace("-", "_")
        value = value if given else next((word for word in unknown[1:2] if not word.startswith("-")), "VALUE")
        keys = {field.name for field in fields(Prune)}
        hint = f"; {key!r} is set in the config, or by --cfg-options prune.{key}={value}" if key in keys else ""
        parser.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
    return args


def start(args: argparse.Namespace) -> None:
    """Apply the common arguments, before any plug-in is loaded."""
    # cuBLAS repeats its sums only with this, and reads it once, when a GPU is first used.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if args.no_plugin:
        from pxframe.plugin import host

        host.block(args.no_plugin)
    if getattr(args, "trust_checkpoint", False):
        from pxframe.plugin.checkpoint import trust

        trust()


def begin(args: argparse.Namespace) -> JobConfig:
    """Say what is done, and refuse at once what is wrong in the arguments and in the config; torch comes later.

    Under torchrun the processes meet here, and ``args.device`` becomes the device of this one.

    Returns:
        the config, with the work dir and the overrides of the command line.
    """
    from pxframe.job.places import check_folder, checked_folder, find_config

    processes.hushed()
    args.device = processes.met(args.device)
    file = find_config(args.config)
    if args.work_dir is not None:
        ranks.by_first(lambda: check_folder(checked_folder(args.work_dir), resume=args.resume))
    print(f"checking {file} before work begins", flush=True)
    start(args)

    from pxframe.job.config import load_config

    config = load_config(file, args.cfg_options)
    if args.work_dir is not None:
        config.work_dir = checked_folder(args.work_dir)
    # The config file may lie elsewhere on another machine, and each process has a device of its own.
    given = {name: value for name, value in vars(args).items() if name not in ("config", "device", "run")}
    processes.check_agreed(given, {name: value for name, value in vars(config).items() if name != "file"})
    ranks.by_first(lambda: check_folder(config.work_dir, resume=args.resume))
    return config


def job_of(args: argparse.Namespace, config: JobConfig, tasks: Iterable[str] | None) -> Job:
    """The job that the arguments describe, for these tasks of its config (None: all), with ``--ticket`` if given."""
    from pxframe.job.job import Job
    from pxframe.ticket.ticket import Ticket

    file = getattr(args, "ticket", None)
    given = (Path(file).stem, Ticket.load(file)) if file else None
    return Job.from_config(config, device=args.device, tasks=tasks, resume=args.resume, given=given)


def check_file(path: str, what: str) -> None:
    """Refuse a file that is not there, in the words of those that read it.

    Raises:
        PxframeError: there is no such file.
    """
    if not Path(path).exists():
        raise PxframeError(f"cannot read {what} {path}: No such file or directory")


def choose_threads(earlier: int | None = None, processes: int | None = None) -> int:
    """Set how many threads torch uses: one for each core that is free when the command starts; at least one.

    A run that goes on takes as many as it was begun with (``earlier``): sums are rounded otherwise with more or fewer.

    A layer waits for the slowest of its threads, so threads that share cores with other programs make a run many times
    slower. ``OMP_NUM_THREADS`` and ``MKL_NUM_THREADS`` go first: if either is set, nothing is changed.

    Args:
        earlier: see above.
        processes: how many are to share the cores, each with as many threads; None: there is only this one.

    Returns:
        The number of threads in use.
    """
    import torch

    if "OMP_NUM_THREADS" in os.environ or "MKL_NUM_THREADS" in os.environ or not hasattr(os, "getloadavg"):
        return torch.get_num_threads()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if earlier is not None:
        torch.set_num_threads(earlier)
        return earlier
    if processes is not None:
        torch.set_num_threads(max(1, cores // processes))
        return torch.get_num_threads()
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
        log, level = logging.getLogger("pxframe"), logging.getLogger("pxframe").level
        log.setLevel(logging.ERROR)  # the commands print what it would say
        try:
            code = copy_context().run(main, argv)  # what a flag switches on ends with the command
            ranks.leave()
            return code
        except PxframeError as error:
            return _fail(_LOST if ranks.lost(error) else processes.named(str(error)))
        except KeyboardInterrupt:
            processes.tell("stopped; the same command with --resume goes on from here")
            return processes.ended(130)
        except BrokenPipeError:  # the reader of our output has gone, as `head` does
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return processes.ended(141)
        except Exception as error:
            if ranks.lost(error):
                return _fail(_LOST)
            if isinstance(error, OSError) and error.errno in _REFUSED:
                why = f"{error.filename or 'a file'}: {error.strerror}; what is finished is kept: mend it and --resume"
                return _fail(processes.named(why))
            if processes.told_by_me():  # a mistake of ours: all that is known of it
                raise
            return processes.ended(2)
        finally:
            log.setLevel(level)

    return wrapped


def _fail(text: str) -> int:
    processes.tell(f"error: {printable(text)}")
    return processes.ended(2)


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def _show_warning(message: Any, category: Any, filename: str, lineno: int, file: Any = None, line: Any = None) -> None:
    """Ours in one line; of the libraries' warnings a user can mend none, so they stay out of the way."""
    if issubclass(category, PluginWarning) and not processes.number():
        print(f"warning: {message}", file=sys.stderr)


class _Overrides(argparse.Action):
    """mmengine's, imported when there are some, with mistakes told in argparse's way."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        from mmengine.config import DictAction

        try:
            DictAction(self.option_strings, self.dest, nargs="+")(parser, namespace, values, option_string)
        except Exception as error:  # whatever its little parser runs into
            parser.error(f"{option_string}: cannot read {' '.join(map(str, values))!r} as KEY=VALUE ({error})")
        # As they were typed, for a process that reads them again.
        setattr(namespace, f"{self.dest}_given", list(values))


def show_table(table: Table, width: int = 140) -> None:
    """Print a table; where there is no terminal whose width counts, ``width`` characters wide."""
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else width).print(table)


def script(description: str, add_arguments: Callable[[argparse.ArgumentParser], None], run: Callable[..., int]) -> int:
    """Run one command as a program of its own: ``python tools/transfer.py CONFIG``."""

    @one_line_errors
    def main(argv: Sequence[str] | None = None) -> int:
        parser = argparse.ArgumentParser(description=description)
        add_arguments(parser)
        return run(parsed(parser, argv))

    return main()
