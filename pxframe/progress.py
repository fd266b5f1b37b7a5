"""A progress bar for long work: on a terminal only, on stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


@contextmanager
def rounds_bar(title: str, rounds: int) -> Iterator[Callable[[float], None]]:
    """Gives a function to call after each round with the density reached. Silent when stderr is no terminal."""
    if rounds < 2 or not sys.stderr.isatty():
        yield lambda density: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("density {task.fields[density]:.2%}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(title, total=rounds, density=1.0)
        yield lambda density: progress.update(task, advance=1, density=density)
