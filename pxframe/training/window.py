"""Parts of a run: training between two optimizer steps, or only up to the initialisation of the weights."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import torch
from mmengine.hooks import Hook

from pxframe.base.errors import PxframeError


class Window(Hook):
    """Trains from optimizer step ``start`` up to step ``stop`` of a runner's schedule.

    Steps before ``start`` load their data and change the learning rate, but do not change the weights. So the steps in
    the window see the data and the learning rate of a complete run.

    Args:
        start: number of the first step, counted from 0.
        stop: number of the step to stop before; None trains to the end of the schedule.
    """

    class Reached(Exception):
        """The last step before ``stop`` is done."""

    def __init__(self, start: int = 0, stop: int | None = None) -> None:
        self.start, self.stop = start, stop

    def run(self, runner: Any) -> None:
        """Train the runner's model.

        Raises:
            PxframeError: the schedule ends before ``stop``, or before a step of the window.
        """
        if self.stop == self.start:
            return
        runner.register_hook(self, priority="LOWEST")
        try:
            runner.train()
        except self.Reached:
            return
        if max(self.start, self.stop or 0) >= runner.iter:
            raise PxframeError(
                f"training has {runner.iter} steps: step {self.stop or self.start} is past its end; choose a lower step"
            )

    def before_train(self, runner: Any) -> None:
        step = runner.model.train_step
        skipped = {"loss": torch.zeros((), device=next(runner.model.parameters()).device)}
        runner.model.train_step = lambda *a, **k: skipped if runner.iter < self.start else step(*a, **k)

    def after_train_iter(self, runner: Any, *args: Any, **kwargs: Any) -> None:
        if runner.iter + 1 == self.stop:
            raise self.Reached


class _Began(Exception):
    """Training was about to begin."""


class _Begin(Hook):
    def before_train(self, runner: Any) -> None:
        raise _Began


def initialised(runner: Any) -> Any:
    """The runner's model with the weights that training begins with. The runner cannot be used afterwards."""
    runner.register_hook(_Begin(), priority="HIGHEST")
    with suppress(_Began):
        runner.train()
    return runner.model
