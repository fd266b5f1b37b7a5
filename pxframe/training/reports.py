"""What a run reports of itself: a note if it diverged, a progress bar, lines in the log, and curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.hooks import Hook
from mmengine.visualization import Visualizer

from pxframe.base.bars import Bar
from pxframe.base.errors import blaming


def mean_loss(runner: Any) -> float:
    """Mean training loss over the current epoch."""
    return float(runner.message_hub.get_scalar("train/loss").mean(len(runner.train_dataloader)))


class Divergence(Hook):
    """Notes in ``runner.diverged`` the first epoch whose loss was not finite. A run that is resumed keeps the note."""

    def after_load_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        runner.diverged = checkpoint["meta"].get("diverged")

    def after_train_epoch(self, runner: Any) -> None:
        if getattr(runner, "diverged", None) is None and not math.isfinite(mean_loss(runner)):
            runner.diverged = runner.epoch + 1


class EpochBar(Hook):
    """Draws a progress bar over all iterations of a run, with the loss beside it, if stderr is a terminal."""

    priority = "VERY_LOW"

    def __init__(self, title: str) -> None:
        self.title = title
        self._bar: Bar | None = None

    def before_train(self, runner: Any) -> None:
        self._bar = Bar(self.title, runner.max_iters, runner.iter).start()

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        if self._bar is not None and self._bar.shown and outputs and "loss" in outputs:
            self._bar.advance(f"loss {float(outputs['loss']):.3f}")

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
