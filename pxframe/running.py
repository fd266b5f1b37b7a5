"""Running one task of a job: its runner, trained, tested and saved."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pxframe.files import replacing
from pxframe.job import Job
from pxframe.task import Task
from pxframe.ticket import Ticket

Say = Any  # a function that takes one line of text


def runner_of(job: Job, task: Task, model: nn.Module, work_dir: Path, resume: bool = False) -> Any:
    """The task's runner, for a ``model`` of its own."""
    return task.runner(model, job.provider, work_dir=work_dir, device=job.device, seed=job.seed, resume=resume)


def close(runner: Any) -> None:
    """Close the runner's log, which mmengine would keep open until the process ends."""
    for handler in runner.logger.handlers:
        if isinstance(handler, logging.FileHandler):
            handler.close()


def train(job: Job, where: str, task: Task, model: nn.Module, ticket: Ticket | None, work_dir: Path) -> dict[str, Any]:
    """Train ``model`` in place on ``task``, evaluate it, and save what was trained for use without this library."""
    from pxframe.epoch_bar import EpochBar
    from pxframe.recording import Recorder
    from pxframe.runner_hooks import Divergence, TicketHook

    start = time.perf_counter()
    classifier, place = job.provider.classifier(model), job.provider.place(model)  # before the task strips it
    runner = runner_of(job, task, model, work_dir, resume=job.resume)
    if ticket is not None:
        runner.register_hook(TicketHook(ticket, classifier))
    divergence = Divergence()
    for hook in (EpochBar(where), divergence):
        runner.register_hook(hook)
    if job.vis_backends:
        runner.register_hook(Recorder(job.vis_backends, f"{where} seed {job.seed}", work_dir))
    runner.train()
    metrics = runner.test()
    with replacing(work_dir / "model.pth") as scratch:
        torch.save(task.export(runner.model, place), scratch)
    close(runner)
    return {
        "metric": task.metric,
        "value": float(metrics[task.metric]),
        "metrics": {key: float(value) for key, value in metrics.items()},
        "seconds": time.perf_counter() - start,
        "epochs": runner.max_epochs,
        "diverged": divergence.epoch,
    }
