"""Runs a grid: starts a process for every cell that is ready, until nothing is left that can be done."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pxframe.base.errors import printable, some
from pxframe.grid.cells import Cell
from pxframe.grid.leash import Ended
from pxframe.grid.schedule import Schedule
from pxframe.grid.view import View
from pxframe.grid.work import Work
from pxframe.job.job import Job
from pxframe.job.made import NotMade

#: How many lines of a log are shown when its cell fails.
LAST = 8


class Engine(Protocol):
    """Where processes run."""

    @property
    def width(self) -> int:
        """How many run at a time."""

    @property
    def queues(self) -> bool:
        """Whether the engine is to know of all cells that are ready, beyond those that can run now."""

    def submit(self, command: Sequence[str], env: Mapping[str, str], log: Path, gpus: float) -> Future[Ended]:
        """Start a command of Python.

        Args:
            command: the interpreter's arguments.
            env: set in its environment.
            log: its output is appended to this file.
            gpus: how many GPUs it needs; a part of one is shared.

        Returns:
            how it ended; the future fails if that cannot be known, as what ran it was lost.
        """

    def stop(self) -> None:
        """End all that runs, and wait for it."""


@dataclass(frozen=True)
class Drive:
    """What :func:`drive` is given.

    Attributes:
        job: the job, whose folder is claimed.
        schedule: of the cells.
        engine: runs them; it is stopped in the end.
        command: the interpreter's arguments that do a cell.
        env: set in the environment of every cell.
        gpus: that each cell asks for.
        view: shows what happens.
    """

    job: Job
    schedule: Schedule
    engine: Engine
    command: Callable[[Cell], Sequence[str]]
    env: Mapping[str, str]
    gpus: float
    view: View


def drive(given: Drive) -> None:
    """Run all cells that are not finished, each as soon as those that it needs are; the schedule says what became so.

    A cell whose file is there, made by the present settings, is not started.
    """
    schedule, view = given.schedule, given.view
    works = {seed: Work(given.job, seed, lambda line: None) for seed in given.job.seeds}
    running: dict[Future[Ended], tuple[Cell, int]] = {}
    told: set[tuple[str, ...]] = set()
    try:
        with view:
            while True:
                while given.engine.queues or len(running) < given.engine.width:
                    cell = schedule.ready()
                    if cell is None:
                        break
                    found = works[cell.seed].unfinished(cell)
                    if found is None:
                        schedule.done(cell)
                        view.finished_before(cell)
                        continue
                    _tell(cell, found, told, view)
                    running[_submit(given, cell)] = cell, _size(cell.log(given.job.root))
                    schedule.started(cell)
                if not running:
                    return
                ended = wait(running, timeout=1, return_when=FIRST_COMPLETED).done
                for future in [future for future in running if future in ended]:  # in the order of their starts
                    cell, begin = running.pop(future)
                    _settle(given, cell, future, begin, works[cell.seed])
    finally:
        given.engine.stop()


def _submit(given: Drive, cell: Cell) -> Future[Ended]:
    given.view.started(cell)
    return given.engine.submit(given.command(cell), given.env, cell.log(given.job.root), given.gpus)


def _settle(given: Drive, cell: Cell, future: Future[Ended], begin: int, work: Work) -> None:
    """Book how a cell's process ended. Its file counts, whatever it says of itself."""
    schedule, view, log = given.schedule, given.view, cell.log(given.job.root)
    lost, why, seconds = False, "", 0.0
    try:
        ended = future.result()
    except Exception as error:  # whatever an engine says of processes that it lost
        text = printable(str(error).strip().partition("\n")[0])[:200]
        lost, why = True, f"what ran it was lost ({type(error).__name__}{': ' if text else ''}{text})"
    else:
        seconds = ended.seconds
        if ended.code:
            why = f"exit code {ended.code}"
        else:
            found = work.unfinished(cell)
            why = str(found) if found else ""
    if not why:
        schedule.done(cell)
        view.done(cell, seconds)
        return
    again = schedule.failed(cell, lost)
    view.failed(cell, why, log, last_lines(log, begin), again)


def _tell(cell: Cell, found: NotMade, told: set[tuple[str, ...]], view: View) -> None:
    """Say once of each changed setting that what it made is made again; the cell's log says where the old files are."""
    settings = tuple(change for change in found.changed if not change.endswith(" changed"))
    if settings and settings not in told:
        told.add(settings)
        view.say(f"{cell}: {some(settings)}; made again, with what depends on it")


def last_lines(log: Path, begin: int) -> list[str]:
    """The last lines of a log after ``begin`` bytes."""
    try:
        with open(log, "rb") as file:
            file.seek(begin)
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return []
    return [printable(line) for line in text.splitlines() if line.strip()][-LAST:]


def _size(log: Path) -> int:
    return log.stat().st_size if log.exists() else 0
