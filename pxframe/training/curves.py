"""Curves of a run for mmengine's visualisation back ends: TensorBoard, Weights & Biases, and their like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.hooks import Hook
from mmengine.visualization import Visualizer

from pxframe.base.errors import blaming
from pxframe.training.hooks import mean_loss


class Recorder(Hook):
    """Sends loss and learning rate of every epoch, and the test's metrics, to ``backends``.

    Args:
        backends: configs of mmengine's back ends, e.g. ``dict(type="TensorboardVisBackend")`` or
            ``dict(type="WandbVisBackend", init_kwargs=dict(project="tickets", name="{run}"))``.
        run: name of the run; takes the place of ``{run}`` in their strings.
        folder: where back ends write that write files.
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
