"""What the commands that measure tickets do alike: the job, its tickets, a table, a file, and the report."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pxframe_tools.common import add_job_arguments, begin, choose_threads, job_of, show_table

if TYPE_CHECKING:
    from pxframe.job.config import JobConfig
    from pxframe.job.job import Job
    from pxframe.stages.measured import Measure

Row = dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser, images: int) -> None:
    """Those of every job, and how many images to look at."""
    add_job_arguments(parser)
    parser.add_argument(
        "--images", type=number, default=images, metavar="N", help=f"images to look at; default: {images}"
    )


def number(text: str) -> int:
    """A whole number of at least 1, or the error that argparse tells."""
    found = int(text)
    if found < 1:
        raise ValueError
    return found


def tried(args: argparse.Namespace, tasks: bool = False, change: Callable[[JobConfig], None] | None = None) -> Job:
    """The job, checked and tried out.

    Args:
        tasks: whether its tasks will be trained, and are to be built.
        change: called with the config before the job is built.
    """
    config = begin(args)  # before torch is imported, which takes seconds
    if change is not None:
        change(config)
    from pxframe.job.claim import earlier_threads
    from pxframe.stages.rehearsal import rehearse

    job = job_of(args, config, None if tasks else [])
    print(f"threads: {choose_threads(earlier_threads(job))}", flush=True)
    rehearse(job, say)
    return job


def say(line: str) -> None:
    """Print a line at once."""
    print(line, flush=True)


def rows_of(job: Job, what: str, settings: Mapping[str, Any], images: int, measure: Measure) -> list[Row]:
    """A row for each seed and ticket of a job whose folder is claimed; see :func:`pxframe.stages.measured.measured`."""
    from pxframe.stages.measured import measured

    rows = []
    for one in job.repetitions():
        rows += measured(one, what, settings, images, measure, job.telling(one.seed, say))
    return rows


def measured_rows(
    args: argparse.Namespace, what: str, settings: Mapping[str, Any], images: int, measure: Measure
) -> tuple[Job, list[Row]]:
    """The job that the arguments describe, and :func:`rows_of` it."""
    job = tried(args)
    from pxframe.job.claim import claimed

    with claimed(job):
        return job, rows_of(job, what, settings, images, measure)


def write(job: Job, what: str, rows: Sequence[Mapping[str, Any]], **about: Any) -> str:
    """Write ``WORK_DIR/WHAT.json``, and the report. Returns where they are.

    The file has the rows, the settings they depend on, the versions, and ``about``.
    """
    from pxframe.base.versions import versions
    from pxframe.files.writing import write_json
    from pxframe.job.claim import settings_of
    from pxframe.report.write import write_report

    file = job.root / f"{what}.json"
    made = {"config": job.config.file, "settings": settings_of(job), "versions": versions()}
    write_json(file, {"rows": list(rows), **made, **about})
    return f"{file}, {write_report(job.root, job.tasks)}"


def print_means(rows: Sequence[Row], columns: Mapping[str, tuple[str, Callable[[float], str]]]) -> None:
    """A table on stdout: for each variant the mean over the seeds, and the deviation where there are several.

    Args:
        columns: title -> key of the rows, and how a number is written.
    """
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
    show_table(table)
