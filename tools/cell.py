"""Do one cell of a job, as ``pxframe transfer --jobs`` and ``--engine ray`` have it done.

    python -m pxframe_tools.cell WORK_DIR/grid.json --cell seed-0/digits/px-90.00

The command that runs the grid wrote the file, and claimed the work dir. A cell that is finished is left as it is; one
that another process is at is waited for.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys

from pxframe.base.errors import PxframeError, near
from pxframe_tools import transfer
from pxframe_tools.common import begin, job_of, script
from pxframe_tools.grid import config_digest


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="what the command that runs the grid wrote: WORK_DIR/grid.json")
    parser.add_argument("--cell", metavar="ID", required=True, help="the cell, e.g. seed-0/pretrain")


def run(args: argparse.Namespace) -> int:
    from pxframe.files.writing import read_json

    about = read_json(args.file)
    try:
        os.chdir(about["folder"])  # paths in a config are relative to it
    except OSError as error:
        raise PxframeError(f"cannot work in {about['folder']}: {error.strerror}; all nodes must see it") from error
    parser = argparse.ArgumentParser()
    transfer.add_arguments(parser)
    told = parser.parse_args(about["arguments"])
    config = begin(told)

    import torch

    from pxframe.files.lock import waiting
    from pxframe.grid.cells import cells
    from pxframe.grid.work import Work

    torch.set_num_threads(about["threads"])
    job = job_of(told, config, tasks_of(args.cell, about["tasks"], given=told.ticket is not None))
    if config_digest(job) != about["config"]:
        raise PxframeError(f"{told.config} was changed since the command was started; stop it, and start it again")
    known = {str(cell): cell for cell in cells(job)}
    if args.cell not in known:
        raise PxframeError(f"there is no cell {args.cell!r}{near(args.cell, known)}")
    cell = known[args.cell]
    say = functools.partial(print, flush=True)
    with waiting(cell.lock(job.root), say):
        Work(job, cell.seed, say).do(cell)
    return 0


def tasks_of(cell: str, tasks: list[str], given: bool) -> list[str]:
    """The tasks that a cell is built with: its own, as reading the data of all of them may take long.

    Beside a ticket that was given, controls are scored on the first task. A cell of no task is built with it, too.
    """
    own = [part for part in cell.split("/")[1:-1] if part in tasks]  # no task is called like another part of a name
    return list(dict.fromkeys([*(tasks[:1] if given or not own else []), *own]))


if __name__ == "__main__":
    sys.exit(script("Do one cell of a job.", add_arguments, run))
