"""What of a grid is ready to run, what is done, what is tried again, and what can no longer be done."""

from __future__ import annotations

from collections import Counter
from typing import Literal

from pxframe.grid.cells import Cell, Cells

State = Literal["waiting", "running", "done", "failed"]
#: How often a cell may lose its host before it is given up: a cell may itself be what brings its hosts down.
MOST_DEATHS = 5


class Schedule:
    """The account of a grid. It starts nothing: it is told what was started, and how that ended.

    Args:
        cells: every cell with the cells that it needs, which come before it.
        retries: how often a cell that failed is tried again.
    """

    def __init__(self, cells: Cells, retries: int) -> None:
        self.cells, self.retries = cells, retries
        self.state: dict[Cell, State] = dict.fromkeys(cells, "waiting")
        self._failures: Counter[Cell] = Counter()
        self._deaths: Counter[Cell] = Counter()

    def ready(self) -> Cell | None:
        """The first cell that waits for nothing but to be started; None if there is none now."""
        for cell, needs in self.cells.items():
            if self.state[cell] == "waiting" and all(self.state[need] == "done" for need in needs):
                return cell
        return None

    def started(self, cell: Cell) -> None:
        """A process of the cell was started."""
        self.state[cell] = "running"

    def done(self, cell: Cell) -> None:
        """The cell's file is there."""
        self.state[cell] = "done"

    def failed(self, cell: Cell, died: bool = False) -> bool:
        """An attempt has failed.

        Args:
            died: it was not the cell's own process that failed, but the one that held it. Of such failures of a cell
                one counts as an attempt; after :data:`MOST_DEATHS` of them it is given up.

        Returns:
            whether the cell is tried again.
        """
        self._deaths[cell] += died
        self._failures[cell] += not died or self._deaths[cell] == 1
        again = self._failures[cell] <= self.retries and self._deaths[cell] < MOST_DEATHS
        self.state[cell] = "waiting" if again else "failed"
        return again

    def attempts(self, cell: Cell) -> int:
        """How many attempts of the cell have failed."""
        return self._failures[cell] + max(0, self._deaths[cell] - 1)

    def count(self, state: State) -> int:
        """How many cells are in a state."""
        return sum(found == state for found in self.state.values())

    def missing(self) -> dict[Cell, Cell]:
        """Every cell that is not done, with the failed cell that it waits for: itself, or the first one before it.

        Call it when nothing is ready and nothing runs.
        """
        found: dict[Cell, Cell] = {}
        for cell, needs in self.cells.items():
            if self.state[cell] == "failed":
                found[cell] = cell
            elif self.state[cell] != "done":
                found[cell] = next(found[need] for need in needs if need in found)
        return found
