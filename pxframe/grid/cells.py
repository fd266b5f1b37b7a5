"""The cells of a job: its stages for one seed, task and ticket each. They are known from the config alone.

No two cells write the same file. A cell reads what the cells that it needs have written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pxframe.job.job import Job
from pxframe.job.outputs import pretrained_file, result_file, tickets_folder, weights_file
from pxframe.stages.subject import refit_of
from pxframe.stages.tickets import given_controls

Kind = Literal["pretrain", "ticket", "sparse", "train"]


@dataclass(frozen=True)
class Cell:
    """One process of a job.

    Attributes:
        kind: ``"pretrain"`` trains the backbone, ``"ticket"`` makes a ticket, ``"sparse"`` trains a ticket's weights on
            the ``pretrain`` task, ``"train"`` trains a task with a ticket.
        seed: of the repetition.
        task: name of the task; None for what all tasks share.
        variant: name of the ticket; None for the pre-training of the backbone.
    """

    kind: Kind
    seed: int
    task: str | None = None
    variant: str | None = None

    def __str__(self) -> str:
        """A short name, fit for a path: ``seed-0/digits/px-90.00``. No other cell of the job has it."""
        stage = {"pretrain": "pretrain", "ticket": "tickets", "sparse": "pretrain", "train": None}[self.kind]
        parts = (f"seed-{self.seed}", stage, self.task, self.variant)
        return "/".join(part for part in parts if part is not None)

    def log(self, root: Path) -> Path:
        """The file that the cell's process prints to; ``root`` is the folder of the job."""
        return root / "logs" / f"{self}.log"

    def lock(self, root: Path) -> Path:
        """The file that the cell's process holds a lock on."""
        return self.log(root).with_suffix(".lock")


#: Every cell of a job with the cells that it needs, which come before it.
Cells = Mapping[Cell, tuple[Cell, ...]]


def cells(job: Job) -> Cells:
    """The cells of all seeds, and of the tasks chosen; no data is read and no network is built.

    Raises:
        PxframeError: the given ticket has the name of one of its controls.
    """
    found: dict[Cell, tuple[Cell, ...]] = {}
    for seed in job.seeds:
        _add_seed(found, job, seed)
    return found


def _add_seed(found: dict[Cell, tuple[Cell, ...]], job: Job, seed: int) -> None:
    begin: tuple[Cell, ...] = ()
    if job.pretrain is not None:
        begin = (Cell("pretrain", seed),)
        found[begin[0]] = ()
    prunings = job.prunings if job.given is None else given_controls(job)
    ready: dict[tuple[str | None, str], tuple[Cell, ...]] = {}
    for whole in job.tasks if job.whole else (None,):
        for variant in prunings:
            cell = Cell("ticket", seed, whole, variant)
            plain = refit_of(prunings, variant)
            found[cell] = begin if plain is None else (*begin, Cell("ticket", seed, whole, plain))
            ready[whole, variant] = (cell,)
    variants = list(prunings)
    if job.given is not None:
        variants.insert(0, job.given[0])
        ready[None, job.given[0]] = begin
    if job.config.transfer == "mask+weights" and job.tasks:
        for variant in variants:
            cell = Cell("sparse", seed, None, variant)
            found[cell] = ready[None, variant]
            ready[None, variant] = (cell,)
    for task in job.tasks:
        for variant in variants:
            found[Cell("train", seed, task, variant)] = ready[task if job.whole else None, variant]


def made_by(cell: Cell, job: Job) -> Path:
    """The file that a cell makes. A ``"sparse"`` cell makes none where its ticket has weights of its own already."""
    one = replace(job, seeds=(cell.seed,))
    if cell.kind == "pretrain":
        return pretrained_file(one)
    assert cell.variant is not None
    if cell.kind == "ticket":
        return tickets_folder(one, cell.task) / f"{cell.variant}.safetensors"
    if cell.kind == "sparse":
        return weights_file(one, cell.variant)
    assert cell.task is not None
    return result_file(one, cell.task, cell.variant)
