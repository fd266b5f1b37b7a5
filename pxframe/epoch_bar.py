"""Progress of a training run, for whoever waits: a bar on a terminal, nothing elsewhere."""

from __future__ import annotations

import sys
from typing import Any

from mmengine.hooks import Hook
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class EpochBar(Hook):
    """A bar over all iterations of a run, with the loss; on stderr, only where that is a terminal."""

    priority = "VERY_LOW"

    def __init__(self, title: str) -> None:
        self.title = title
        self._bar: Progress | None = None

    def before_train(self, runner: Any) -> None:
        if not sys.stderr.isatty():
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]}"),
            TimeRemainingColumn(),
        )
        self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
        self._task = self._bar.add_task(self.title, total=runner.max_iters, completed=runner.iter, loss="-")
        self._bar.start()

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        if self._bar is not None and outputs and "loss" in outputs:
            self._bar.update(self._task, advance=1, loss=f"{float(outputs['loss']):.3f}")

    def after_train(self, runner: Any) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
