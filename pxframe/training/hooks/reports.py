"""What a run reports of itself: a note if it diverged, a progress bar, lines in the log, and curves."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import Hook, RuntimeInfoHook
from mmengine.visualization import Visualizer
from torch import Tensor

from pxframe.base import ranks
from pxframe.base.bars import Bar
from pxframe.base.errors import blaming


def mean_loss(runner: Any) -> float:
    """Mean training loss over the current epoch."""
    return float(runner.message_hub.get_scalar("train/loss").mean(len(runner.train_dataloader)))


class LateLosses(RuntimeInfoHook):
    """Gives mmengine's message hub the losses of an epoch when it ends, and not after every step.

    To read a loss the program waits until a GPU has done all its work, and the GPU then waits for the next step. Of
    several ranks' losses it gives the mean, so that a loss that is not finite on one of them is so for all.
    """

    def before_train_epoch(self, runner: Any) -> None:
        super().before_train_epoch(runner)
        self._losses: dict[str, list[Any]] = {}

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        for name, value in (outputs or {}).items():
            self._losses.setdefault(name, []).append(value.detach() if isinstance(value, Tensor) else value)

    def after_train_epoch(self, runner: Any) -> None:
        for name, values in self._losses.items():
            tensors = [value.reshape(()) for value in values if isinstance(value, Tensor)]
            numbers = values
            if len(tensors) == len(values):
                numbers = (ranks.summed(torch.stack(tensors)) / ranks.size()).tolist()
            for number in numbers:
                runner.message_hub.update_scalar(f"train/{name}", number)


class Divergence(Hook):
    """Notes in ``runner.diverged`` the first epoch whose loss was not finite. A run that is resumed keeps the note."""

    def after_load_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        runner.diverged = checkpoint["meta"].get("diverged")

    def after_train_epoch(self, runner: Any) -> None:
        if getattr(runner, "diverged", None) is None and not math.isfinite(mean_loss(runner)):
            runner.diverged = runner.epoch + 1


class EpochBar(Hook):
    """Draws a progress bar over all iterations of a run, with the loss beside it, if stderr is a terminal.

    The loss is read once in so many ``seconds``, since a GPU must be waited for.
    """

    priority = "VERY_LOW"
    seconds = 0.5

    def __init__(self, title: str) -> None:
        self.title = title
        self._bar: Bar | None = None
        self._text, self._read_at = "", -math.inf

    def before_train(self, runner: Any) -> None:
        self._bar = Bar(self.title, runner.max_iters, runner.iter).start()

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        if self._bar is not None and self._bar.shown and outputs and "loss" in outputs:
            if time.monotonic() - self._read_at >= self.seconds:
                self._text = f"loss {float(outputs['loss']):.3f}"
                self._read_at = time.monotonic()
            self._bar.advance(self._text)

    def after_train(self, runner: Any) -> None:
        if self._bar is not None:
            self._bar.stop()


class EpochLog(Hook):
    """Writes a line to the log after every epoch, with the mean loss and the learning rate."""

    def after_train_epoch(self, runner: Any) -> None:
        loss = mean_loss(runner)
        rate = runner.optim_wrapper.get_lr()["lr"][0]
        runner.logger.info(f"epoch {runner.epoch + 1}/{runner.max_epochs}: loss {loss:.4f}, learning rate {rate:.3g}")


class Recorder(Hook):
    """Sends the loss and the learning rate of every epoch, and the test's metrics, to TensorBoard and the like.

    Args:
        backends: configs of mmengine's visualisation back ends, e.g. ``dict(type="TensorboardVisBackend")`` or
            ``dict(type="WandbVisBackend", init_kwargs=dict(project="tickets", name="{run}"))``.
        run: name of the run. It replaces ``{run}`` in all strings of the configs.
        folder: folder for the back ends that write files.

    Raises:
        PxframeError: a back end cannot be built, or its package is missing.
    """

    def __init__(self, backends: Sequence[Mapping[str, Any]], run: str, folder: Path) -> None:
        self._where = "vis_backends"
        with blaming(self._where):
            self._board = Visualizer(vis_backends=_named([dict(b) for b in backends], run), save_dir=str(folder))

    def after_train_epoch(self, runner: Any) -> None:
        self._send(
            {"loss": mean_loss(runner), "learning rate": runner.optim_wrapper.get_lr()["lr"][0]}, runner.epoch + 1
        )

    def after_test_epoch(self, runner: Any, metrics: Mapping[str, float] | None = None) -> None:
        self._send({f"test {key}": float(value) for key, value in (metrics or {}).items()}, runner.epoch)

    def after_test(self, runner: Any) -> None:
        self._board.close()

    def _send(self, values: dict[str, float], epoch: int) -> None:
        with blaming(self._where):  # a back end's package is first imported here
            self._board.add_scalars(values, step=epoch)


def _named(value: Any, run: str) -> Any:
    if isinstance(value, Mapping):
        return {key: _named(item, run) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_named(item, run) for item in value]
    return value.replace("{run}", run) if isinstance(value, str) else value
