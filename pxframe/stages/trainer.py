"""The training of scorers that train, as magnitude pruning after training does."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from torch import nn

from pxframe.job.job import Job, Say
from pxframe.job.made import read_state, reuse, save_state
from pxframe.plugin.task import Task
from pxframe.ticket.file import fingerprint
from pxframe.ticket.ticket import Ticket
from pxframe.training.run import train_between


class Trainer:
    """Trains with the runner of a task; it is passed to a scorer as :data:`pxframe.network.trained.Train`.

    The result of each training is kept in a file, so that a job that was stopped need not train again.

    Args:
        job: the job, of one seed.
        task: the task to train on.
        backbone: if a task's whole model is pruned, the backbone that this model was built from; else None.
        folder: folder of the files that are kept.
        recipe: what the ticket depends on. A file that another recipe made is not used.
        say: prints a line.
    """

    def __init__(
        self, job: Job, task: Task, backbone: nn.Module | None, *, folder: Path, recipe: dict[str, Any], say: Say
    ) -> None:
        self._job, self._task, self._backbone = job, task, backbone
        self._folder, self._recipe, self._say = folder, recipe, say

    def __call__(self, model: nn.Module, ticket: Ticket, start: int = 0, stop: int | None = None) -> None:
        """Train ``model`` in place from optimizer step ``start`` up to ``stop``; its pruned weights stay zero."""
        begin = fingerprint({**model.state_dict(), **{f"mask of {n}": m for n, m in ticket.masks.items()}})
        recipe = {**self._recipe, "start": start, "stop": stop, "from": begin}
        file = self._folder / f"{begin[:16]}-{start}-{stop}.safetensors"
        state = reuse(file, recipe, read_state, self._job.root, self._say, told=self._job.told)
        if state is not None:
            model.load_state_dict(state)
            return
        with tempfile.TemporaryDirectory() as scratch:
            train_between(self._job.setting(), self._task, model, ticket, Path(scratch), start, stop, self._backbone)
        save_state(file, model.state_dict(), recipe)
