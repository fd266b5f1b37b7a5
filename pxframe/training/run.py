"""One run: trains a task from a backbone and a ticket, tests it, and saves the model for use without this library."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import DefaultScope
from mmengine.visualization import Visualizer
from torch import nn

from pxframe.base import ranks
from pxframe.files.writing import replacing
from pxframe.plugin.backbone import Backbone
from pxframe.plugin.task import Task
from pxframe.ticket.ticket import Ticket
from pxframe.training.hooks.reports import Divergence, EpochBar, Recorder
from pxframe.training.hooks.sharing import equal
from pxframe.training.hooks.weights import StateHook, TicketHook
from pxframe.training.slimmed import Slimming
from pxframe.training.window import Window


@dataclass(frozen=True)
class Setting:
    """What the runs of one repetition of a job have in common.

    Attributes:
        provider: the provider that built the backbones.
        device: ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
        seed: seed of initialisation, shuffling and augmentation.
        vis_backends: configs for :class:`pxframe.training.hooks.reports.Recorder`.
    """

    provider: Backbone
    device: str
    seed: int
    vis_backends: Sequence[Mapping[str, Any]] = ()

    def runner(self, task: Task, backbone: nn.Module, work_dir: Path, resume: bool = False, **more: Any) -> Any:
        """Build the task's runner. The task changes ``backbone`` in place, so pass a copy if it is needed later.

        Args:
            more: further arguments of :func:`pxframe.make_runner`, which the task hands on.
        """
        return task.runner(
            backbone, self.provider, work_dir=work_dir, device=self.device, seed=self.seed, resume=resume, **more
        )


def close(runner: Any) -> None:
    """Close the log of a runner, and free its entries in mmengine's tables and the memory of its model.

    The runner has no attributes afterwards.
    """
    for handler in runner.logger.handlers:
        if isinstance(handler, logging.FileHandler):
            handler.close()
    for cls in (MMLogger, MessageHub, Visualizer, DefaultScope):
        cls._instance_dict.pop(runner.experiment_name, None)
    # Hooks, loops and runner refer to each other. The garbage collector would have to go through all objects of the
    # process to free them, which takes a second where many libraries are loaded.
    vars(runner).clear()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def remove_checkpoints(work_dir: Path, keep: bool = False) -> None:
    """Delete the checkpoints of a finished run, unless they are to be kept; ``model.pth`` stays."""

    def remove() -> None:
        for pattern in ("epoch_*.pth", "last_checkpoint"):
            for path in work_dir.glob(pattern):
                path.unlink()

    if not keep:
        ranks.by_first(remove)


def train(
    setting: Setting,
    title: str,
    task: Task,
    backbone: nn.Module,
    ticket: Ticket | None,
    work_dir: Path,
    resume: bool = False,
    made_by: str = "",
    slim: bool = False,
) -> dict[str, Any]:
    """Train ``backbone`` in place on ``task``, test it, and write the trained model to ``model.pth``.

    Args:
        title: title of the progress bar and the recorded curves.
        ticket: its pruned weights are kept at zero. None trains all weights.
        work_dir: folder of this run alone.
        resume: go on from the newest checkpoint in ``work_dir``, if there is one.
        made_by: digest of the run's recipe. The run does not resume from a checkpoint with another digest.
        slim: take the channels that the ticket removed out of the model, and train what is left; the trained model is
            written to the folder ``slim`` as well.

    Returns:
        ``metric`` (name of the task's main metric), ``value`` (its value), ``metrics`` (all values by name),
        ``seconds`` (since the run was started or resumed), ``epochs``, and ``diverged`` (the first epoch whose loss was
        not finite, or None). With ``slim`` also ``slim``: the shares of the dense model's cost that are left.
    """
    begun = time.perf_counter()
    provider = setting.provider
    classifier, place = provider.classifier(backbone), provider.place(backbone)  # before the task strips it
    slimming = Slimming(ticket, classifier, setting.device) if slim and ticket is not None else None
    more = {} if slimming is None else {"prepare": slimming}
    runner = setting.runner(task, backbone, work_dir, resume=resume, **more)
    runner.made_by = made_by
    if ticket is not None and slimming is None:
        runner.register_hook(TicketHook(ticket, classifier))
    runner.register_hook(EpochBar(title))
    # It runs before the hook that writes checkpoints, so that the note on an epoch is in the checkpoint of this epoch.
    runner.register_hook(Divergence(), priority="VERY_HIGH")
    if setting.vis_backends and ranks.is_main():
        runner.register_hook(Recorder(setting.vis_backends, f"{title} seed {setting.seed}", work_dir))
    runner.train()
    metrics = runner.test()

    def export() -> None:
        with replacing(work_dir / "model.pth") as scratch:
            torch.save(task.export(runner.model, place), scratch)
        if slimming is not None:
            slimming.save(work_dir / "slim", runner.model)

    ranks.by_first(export)
    epochs, diverged = runner.max_epochs, getattr(runner, "diverged", None)
    close(runner)
    return {
        "metric": task.metric,
        "value": float(metrics[task.metric]),
        "metrics": {key: float(value) for key, value in metrics.items()},
        "seconds": time.perf_counter() - begun,
        "epochs": epochs,
        "diverged": diverged,
        **({} if slimming is None else {"slim": slimming.shares}),
    }


def train_between(
    setting: Setting,
    task: Task,
    model: nn.Module,
    ticket: Ticket,
    work_dir: Path,
    start: int = 0,
    stop: int | None = None,
    backbone: nn.Module | None = None,
) -> None:
    """Train ``model`` in place from optimizer step ``start`` up to ``stop`` of the task's schedule.

    Args:
        ticket: its pruned weights are kept at zero.
        work_dir: folder of this run alone.
        start: number of the first step, counted from 0.
        stop: number of the step to stop before; None trains to the end.
        backbone: if ``model`` is the whole model of a task, the backbone that it was built from. None if ``model`` is
            a backbone itself.
    """
    classifier = setting.provider.classifier(model if backbone is None else backbone)
    runner = setting.runner(task, model if backbone is None else copy.deepcopy(backbone), work_dir)
    if backbone is not None:
        runner.register_hook(StateHook(model.state_dict()), priority="HIGHEST")
    runner.register_hook(TicketHook(ticket, classifier))
    Window(start, stop).run(runner)
    equal(runner.model)  # a run that stops before its end does not do so itself
    if backbone is not None:
        model.load_state_dict(runner.model.state_dict())
    close(runner)
