"""One step of a run tried out before any work begins, so that parts that do not fit together show at once."""

from __future__ import annotations

from typing import Any

import torch

from pxframe.base.errors import PxframeError, blaming
from pxframe.running.undisturbed import evaluating, undisturbed
from pxframe.training.runner import TaskRunner


def rehearse(runner: TaskRunner, where: str, metric: str) -> None:
    """Take the loss of one small training batch, then predict and score one test batch; change nothing.

    The training batch has the first and the last image (the first alone where ``batch_size`` is 1), the test batch
    likewise. Weights, running statistics and random states stay as they were. A loop that takes no optimizer steps,
    such as the one that fits a head, is not tried on a training batch.

    Args:
        where: what messages begin with.
        metric: key that the test must give.

    Raises:
        PxframeError: a batch cannot be made, or the model, its loss or its metric fails on it.
    """
    with runner._own_state(runner.seed):
        if runner.max_iters:
            with undisturbed(runner.model), blaming(f"{where}: a first training step, tried out, failed"):
                _take_loss(runner)
        evaluator = runner.test_evaluator
        with evaluating(runner.model), blaming(f"{where}: a first test, tried out, failed"):
            batch = first_batch(runner.test_dataloader)
            with torch.no_grad():
                found = runner.model.test_step(batch)
            evaluator.process(data_samples=found, data_batch=batch)
            values = evaluator.evaluate(len(found))
    if metric not in values:
        raise PxframeError(f"{where}: the test gives {', '.join(sorted(values))}, and not the metric {metric!r}")


def _take_loss(runner: TaskRunner) -> None:
    with torch.no_grad(), runner.optim_wrapper.optim_context(runner.model):
        batch = runner.model.data_preprocessor(first_batch(runner.train_dataloader), True)
        runner.model.train()._run_forward(batch, mode="loss")


def first_batch(loader: Any) -> Any:
    """A batch of the first and the last item of the loader's data set."""
    dataset, size = loader.dataset, loader.batch_size
    chosen = sorted({0, len(dataset) - 1})[: min(size, 2)]
    return loader.collate_fn([dataset[i] for i in chosen])
