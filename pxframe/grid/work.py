"""The work of one cell, done in this process by the stages of the job, each of which reads the files before it."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from pxframe.grid.cells import Cell, made_by
from pxframe.job.job import Job, Say
from pxframe.job.made import NotMade
from pxframe.stages.runs import pretrain, transfer
from pxframe.stages.subject import Subject, prune_subject, refit_of
from pxframe.stages.tickets import make_tickets, whole_subject, with_weights
from pxframe.ticket.ticket import Ticket


class Work:
    """The cells of one seed of a job, one at a time. What several of them start from is built once.

    Args:
        job: the job; all of its cells are stages of it.
        seed: of the cells.
        say: told what happens, a line at a time.
    """

    def __init__(self, job: Job, seed: int, say: Say) -> None:
        self._job, self._say = replace(job, seeds=(seed,), makes=frozenset()), say
        self._model: nn.Module | None = None
        self._subjects: dict[str, Subject] = {}

    def do(self, cell: Cell) -> None:
        """Make the cell's file, unless it is there.

        Raises:
            pxframe.job.made.NotMade: a file of an earlier cell is not there, or was made by another recipe.
        """
        self._stages(cell, replace(self._job, makes=frozenset([made_by(cell, self._job)])))

    def unfinished(self, cell: Cell) -> NotMade | None:
        """What keeps a cell from being finished; None if its file is there, and the present settings made it.

        Nothing is written. The cells that it needs are finished.
        """
        try:
            self._stages(cell, self._job)
        except NotMade as found:
            return found
        return None

    def _stages(self, cell: Cell, job: Job) -> None:
        if self._model is None:
            self._model = pretrain(job, self._say)
        if cell.variant is None:
            return
        plain = refit_of(job.prunings, cell.variant) if cell.kind == "ticket" and job.given is None else None
        job = replace(job, only=[cell.variant] if plain is None else [plain, cell.variant])
        tickets = self._whole_tickets(cell, job) if job.whole else make_tickets(job, self._model, self._say)
        if cell.kind == "ticket":
            return
        ready = with_weights(job, cell.variant, tickets[cell.variant], self._model, self._say)
        if cell.task is not None:
            transfer(job, cell.task, cell.variant, self._model, ready, self._say)

    def _whole_tickets(self, cell: Cell, job: Job) -> dict[str, Ticket]:
        assert cell.task is not None
        assert self._model is not None
        if cell.task not in self._subjects:
            self._subjects[cell.task] = whole_subject(job, cell.task, self._model)
        return prune_subject(job, self._subjects[cell.task], job.prunings, self._say)
