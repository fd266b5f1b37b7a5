"""How far a grid is: a live picture on a terminal, and a line for each cell anywhere else."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pxframe.grid.cells import Cell
from pxframe.grid.schedule import Schedule

#: How many running cells the picture names.
_NAMED = 12


class View:
    """Shows a schedule on stdout. Use it as ``with view:`` around what changes the schedule.

    Args:
        schedule: what is shown.
        width: how many cells run at a time, to tell the time left.
    """

    def __init__(self, schedule: Schedule, width: int) -> None:
        self._schedule, self._width = schedule, width
        self._console = Console(highlight=False, markup=False, soft_wrap=True)
        self._live: Live | None = None
        self._begun: dict[Cell, float] = {}
        self._seconds: dict[Cell, float] = {}

    def __enter__(self) -> View:
        if self._console.is_terminal:
            self._live = Live(console=self._console, get_renderable=self._picture, refresh_per_second=2, transient=True)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def say(self, line: str) -> None:
        """Print a line; on a terminal above the picture."""
        if self._live is None:
            print(line, flush=True)
        else:
            self._console.print(line)

    def started(self, cell: Cell) -> None:
        """A process of the cell was started, or handed to a cluster."""
        self._begun[cell] = time.monotonic()

    def finished_before(self, cell: Cell) -> None:
        """The cell's file was there."""
        self.say(f"{self._counted()} {cell}: finished before")

    def done(self, cell: Cell, seconds: float) -> None:
        """The cell was done, in so many seconds."""
        self._ended(cell)
        self._seconds[cell] = seconds
        left = self.time_left()
        self.say(f"{self._counted()} {cell}: done in {duration(seconds)}{f'; {left} left' if left else ''}")

    def failed(self, cell: Cell, why: str, log: Path, lines: Sequence[str], again: bool) -> None:
        """An attempt has failed; ``lines`` are the last of its log, ``again`` says whether another follows."""
        self._ended(cell)
        what = "tried again" if again else f"given up after {self._schedule.attempts(cell)} attempts"
        self.say(f"{self._counted()} {cell}: failed, {why}; {what}; the last lines of {log}:")
        for line in lines or ["(it printed nothing)"]:
            self.say(f"    {line}")

    def time_left(self) -> str:
        """``about 12 min``, from the cells done so far; the empty string before there are any."""
        left = [cell for cell, state in self._schedule.state.items() if state in ("waiting", "running")]
        if not (self._seconds and left):
            return ""
        now = time.monotonic()
        begun = dict(list(self._begun.items())[: self._width])
        expected = [max(0.0, self._expected(cell) - now + begun.get(cell, now)) for cell in left]
        return f"about {duration(max(sum(expected) / min(self._width, len(left)), max(expected)))}"

    def _ended(self, cell: Cell) -> None:
        """Of more cells than can run, a cluster holds the later ones back: the first of these begins when one ends."""
        self._begun.pop(cell, None)
        if len(self._begun) >= self._width:
            self._begun[list(self._begun)[self._width - 1]] = time.monotonic()

    def _expected(self, cell: Cell) -> float:
        """Seconds that a cell may take: as others of its kind and task, or of its kind, or any, did."""
        for alike in (lambda c: (c.kind, c.task) == (cell.kind, cell.task), lambda c: c.kind == cell.kind):
            seconds = [seconds for other, seconds in self._seconds.items() if alike(other)]
            if seconds:
                return statistics.mean(seconds)
        return statistics.mean(self._seconds.values())

    def _counted(self) -> str:
        return f"[{self._schedule.count('done')}/{len(self._schedule.cells)}]"

    def _picture(self) -> Group:
        schedule, now = self._schedule, time.monotonic()
        running = list(self._begun.items())[: self._width]
        counts = f"{schedule.count('done')} of {len(schedule.cells)} done, {len(running)} running"
        counts += f", {schedule.count('failed')} failed"
        left = self.time_left()
        line = Table.grid(padding=(0, 1))
        bar = ProgressBar(total=len(schedule.cells), completed=schedule.count("done"), width=30)
        line.add_row(bar, Text(counts), Text(f"{left} left" if left else ""))
        names = Table.grid(padding=(0, 2))
        for cell, begun in running[:_NAMED]:
            names.add_row(Text(f"  {cell}"), Text(duration(now - begun)))
        more = len(running) - _NAMED
        return Group(names, *([Text(f"  and {more} more")] if more > 0 else []), line)


def duration(seconds: float) -> str:
    """``12 s``, ``3 min``, ``2 h 5 min``"""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
