"""What the commands that measure tickets do alike: the job, its tickets, a table, and a file of what was found."""

from __future__ import annotations

import argparse
import functools
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pxframe_tools.common import add_job_arguments, begin, choose_threads

if TYPE_CHECKING:
    from pxframe.job.measured import Measure

Row = dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser, images: int) -> None:
    """Those of every job, and how many images to look at."""
    add_job_arguments(parser)
    parser.add_argument("--images", type=int, default=images, metavar="N", help=f"images to look at; default: {images}")


def rows_of(
    args: argparse.Namespace, what: str, settings: Mapping[str, Any], measure: Measure
) -> tuple[Path, list[Row]]:
    """The job's work folder, and a row for each seed and ticket."""
    config = begin(args)  # before torch is imported, which takes seconds
    from pxframe.base.options import whole_number
    from pxframe.job.claim import claimed, earlier_threads
    from pxframe.job.job import Job
    from pxframe.job.measured import measured
    from pxframe.job.stages import rehearse

    whole_number(what, "images", args.images)
    job = Job.from_config(config, device=args.device, tasks=[], resume=args.resume)
    print(f"threads: {choose_threads(earlier_threads(job))}", flush=True)
    say = functools.partial(print, flush=True)
    rehearse(job, say)
    rows: list[Row] = []
    with claimed(job):
        for repetition in job.repetitions():
            rows += measured(repetition, what, settings, args.images, measure, say)
    return job.root, rows


def write(root: Path, what: str, args: argparse.Namespace, rows: Sequence[Mapping[str, Any]]) -> Path:
    """``WORK_DIR/WHAT.json``: the rows, the config and the versions."""
    from pxframe.base.files import write_json
    from pxframe.base.versions import versions

    file = root / f"{what}.json"
    write_json(file, {"rows": list(rows), "config": args.config, "images": args.images, "versions": versions()})
    return file


def print_means(rows: Sequence[Row], columns: Mapping[str, tuple[str, Callable[[float], str]]]) -> None:
    """A table on stdout: for each variant the mean over the seeds, and the deviation where there are several.

    Args:
        columns: title -> key of the rows, and how a number is written.
    """
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("variant")
    for title in columns:
        table.add_column(title, justify="right")
    for variant in dict.fromkeys(row["variant"] for row in rows):
        mine = [row for row in rows if row["variant"] == variant]
        cells = []
        for key, text in columns.values():
            values = [row[key] for row in mine if row[key] is not None]
            spread = f" ± {text(statistics.stdev(values))}" if len(values) > 1 else ""
            cells.append(text(statistics.mean(values)) + spread if values else "")
        table.add_row(variant, *cells)
    print()
    Console(width=None if sys.stdout.isatty() else 140).print(table)
