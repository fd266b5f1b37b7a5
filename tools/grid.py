"""``--jobs`` and ``--engine``: the stages of a job as processes of their own, on this machine or on a Ray cluster."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from pxframe.base.errors import PxframeError
from pxframe_tools.processes import check_alone

if TYPE_CHECKING:  # torch takes seconds to import
    from pxframe.grid.drive import Engine
    from pxframe.job.job import Job, Say

#: In the work dir: what the process of a cell is told of the command that started it.
FILE = "grid.json"


def add_grid_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of commands that can run their stages as processes."""
    group = parser.add_argument_group(
        "many processes", "every run is a process of its own; if one fails, the others go on"
    )
    group.add_argument("--jobs", metavar="N", type=int, help="run N processes at a time; default: one process does all")
    group.add_argument(
        "--engine", choices=("local", "ray"), help="on this machine (local, the default) or on a Ray cluster"
    )
    group.add_argument("--address", metavar="A", help="the Ray cluster's, or 'auto'; default: start Ray here")
    group.add_argument(
        "--gpus-per-run", metavar="G", type=float, help="share of a GPU that each run asks Ray for; default: 1"
    )
    group.add_argument("--retries", metavar="K", type=int, help="how often to repeat a run that fails; default: 1")


def checked_grid(args: argparse.Namespace) -> bool:
    """Whether the command was asked to run its stages as processes.

    Raises:
        PxframeError: an argument that does not go with the others; the command is one of several processes; or Ray is
            asked for and not installed.
    """
    ray = args.engine == "ray"
    if ray or args.jobs is not None:
        check_alone("--jobs and --engine run each stage as a process of its own")
    for name in ("address", "gpus_per_run"):
        if getattr(args, name) is not None and not ray:
            raise PxframeError(f"--{name.replace('_', '-')} is for a Ray cluster: add --engine ray")
    if args.engine == "local" and args.jobs is None:
        raise PxframeError("--engine local: say how many processes run at a time, with --jobs N")
    if args.retries is not None and not (ray or args.jobs is not None):
        raise PxframeError("--retries is for runs that are processes of their own: add --jobs N or --engine ray")
    for name, least in (("jobs", 1), ("retries", 0)):
        value = getattr(args, name)
        if value is not None and value < least:
            raise PxframeError(f"--{name} must be at least {least}, got {value}")
    if args.gpus_per_run is not None and not 0 < args.gpus_per_run < 1e6:
        raise PxframeError(f"--gpus-per-run must be above 0, got {args.gpus_per_run}")
    if ray and ":" in args.device:
        raise PxframeError(f"--device {args.device}: Ray chooses the GPU of every run; give --device cuda")
    if ray:
        from pxframe.grid.rays import load_ray

        load_ray()  # before work begins
    return ray or args.jobs is not None


def processes(args: argparse.Namespace) -> int | None:
    """How many processes share the cores of a machine; None if there is only this one. On a cluster, one for each."""
    return (os.cpu_count() or 1) if args.engine == "ray" else args.jobs


def run_cells(args: argparse.Namespace, job: Job, threads: int, say: Say, train: bool = True) -> bool:
    """Run all cells of a job whose folder is claimed, as processes. What cannot be done is named.

    Args:
        args: the command's, with those of :func:`add_grid_arguments`.
        threads: of each process.
        train: also transfer the tickets to the tasks.

    Returns:
        whether every cell is done.
    """
    from pxframe.files.writing import write_json
    from pxframe.grid.cells import cells
    from pxframe.grid.drive import Drive, drive
    from pxframe.grid.environment import settings
    from pxframe.grid.schedule import Schedule
    from pxframe.grid.view import View

    kinds = ("pretrain", "ticket", "sparse", "train") if train else ("pretrain", "ticket")
    schedule = Schedule(
        {cell: needs for cell, needs in cells(job).items() if cell.kind in kinds},
        retries=1 if args.retries is None else args.retries,
    )
    file = job.root.absolute() / FILE
    about = {"arguments": words(args), "folder": os.getcwd(), "tasks": list(job.tasks), "threads": threads}
    write_json(file, {**about, "config": config_digest(job)})
    gpu = job.device != "cpu"
    gpus = (1.0 if args.gpus_per_run is None else args.gpus_per_run) if gpu else 0.0
    running = engine(args, threads)
    drive(
        Drive(
            job=job,
            schedule=schedule,
            engine=running,
            command=lambda cell: ["-m", "pxframe_tools.cell", str(file), "--cell", str(cell)],
            env=settings(threads, gpu),
            gpus=gpus,
            view=View(schedule, running.width),
        )
    )
    missing = schedule.missing()
    for cell, failed in missing.items():
        why = "failed" if cell == failed else f"needs {failed}, which failed"
        say(f"missing: {cell}: {why}; see {failed.log(job.root)}")
    if missing:
        say(f"{len(missing)} of {len(schedule.cells)} are missing; the same command with --resume tries them again")
    return not missing


def engine(args: argparse.Namespace, threads: int) -> Engine:
    """The engine that was asked for."""
    if args.engine == "ray":
        from pxframe.grid.rays import Rays

        return Rays(args.address, threads, args.jobs)
    from pxframe.grid.local import Local

    return Local(args.jobs)


def words(args: argparse.Namespace) -> list[str]:
    """The arguments that describe the job, as the process of a cell is given them."""
    found = [args.config, "--resume", f"--device={args.device}"]
    found += [f"--work-dir={args.work_dir}"] if args.work_dir is not None else []
    found += [f"--ticket={args.ticket}"] if getattr(args, "ticket", None) else []
    found += ["--trust-checkpoint"] if args.trust_checkpoint else []
    found += [f"--no-plugin={name}" for name in args.no_plugin]
    overrides = getattr(args, "cfg_options_given", [])
    return [*found, "--cfg-options", *overrides] if overrides else found


def config_digest(job: Job) -> str:
    """Digest of the config's values: a file that is edited while its grid runs gives another one."""
    from pxframe.job.made import digest

    return digest({**vars(job.config), "prune": vars(job.config.prune)})
