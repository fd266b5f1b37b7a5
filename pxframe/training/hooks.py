"""What happens around training: tickets kept, epochs seeded, checkpoints kept plain, a line of log an epoch."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.runner import set_random_seed
from torch import Tensor

from pxframe.base.bars import Bar
from pxframe.base.errors import PxframeError
from pxframe.ticket.ticket import Ticket
from pxframe.training.checkpoints import sign


class TicketHook(Hook):
    """Applies a ticket when training starts, and keeps its pruned weights at zero until training ends.

    If the ticket has starting values (:attr:`pxframe.Ticket.start`), training starts from them.

    ``before_train`` comes after the weights have been initialised and after a checkpoint has been loaded.

    Args:
        ticket: its masks must fit the model.
        classifier: name of the backbone's classifier (:meth:`pxframe.Backbone.classifier`). The model may lack this
            module, as it does where a task put a head of its own in its place; masks of it are then left out.
    """

    def __init__(self, ticket: Ticket, classifier: str = "") -> None:
        self.ticket = ticket
        self.classifier = classifier

    def before_train(self, runner: Any) -> None:
        ticket, resumed = self.ticket, runner.iter > 0
        try:
            ticket.check(runner.model)
        except PxframeError:
            rest = {n: m for n, m in ticket.masks.items() if not n.startswith(f"{self.classifier}.")}
            if not self.classifier or len(rest) == len(ticket.masks):
                raise
            ticket = Ticket(rest, ticket.meta, ticket.start)
        (ticket.apply if resumed else ticket.rewind)(runner.model)
        ticket.guard(runner.optim_wrapper.optimizer, runner.model)


class Window(Hook):
    """Training from optimizer step ``start`` up to ``stop`` of a runner's schedule (None: to its end).

    Steps before ``start`` draw their data and move the learning rate on, and do nothing else.
    """

    class Reached(Exception):
        """Step ``stop`` was done."""

    def __init__(self, start: int = 0, stop: int | None = None) -> None:
        self.start, self.stop = start, stop

    def run(self, runner: Any) -> None:
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
        skipped = {"loss": torch.zeros(())}
        runner.model.train_step = lambda *a, **k: skipped if runner.iter < self.start else step(*a, **k)

    def after_train_iter(self, runner: Any, *args: Any, **kwargs: Any) -> None:
        if runner.iter + 1 == self.stop:
            raise self.Reached


class StateHook(Hook):
    """Begins training from ``state``, a copy of what the model's ``state_dict()`` is to be."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        self._state = {name: value.clone() for name, value in state.items()}

    def before_train(self, runner: Any) -> None:
        runner.model.load_state_dict(self._state)


class _Began(Exception):
    """Training was about to begin."""


class _Begin(Hook):
    def before_train(self, runner: Any) -> None:
        raise _Began


def initialised(runner: Any) -> Any:
    """The runner's model with the weights that training begins with; the runner cannot be used afterwards."""
    runner.register_hook(_Begin(), priority="HIGHEST")
    with suppress(_Began):
        runner.train()
    return runner.model


class Repeatable(Hook):
    """Makes an epoch depend on nothing but its number, the seed and the state in the checkpoint before it."""

    priority = "VERY_HIGH"

    def before_train_epoch(self, runner: Any) -> None:
        set_random_seed(int(np.random.SeedSequence([runner.seed, runner.epoch]).generate_state(1)[0]))

    def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """Keep tensors and plain values only: what ``torch.load(weights_only=True)`` reads without trusting more.

        mmengine would add the history of all logged numbers, as objects, and the functions of some schedulers.
        """
        kept = checkpoint["message_hub"]["runtime_info"].get("keep_ckpt_ids", [])
        checkpoint["message_hub"] = {
            "log_scalars": {},
            "runtime_info": {"keep_ckpt_ids": kept},
            "resumed_keys": {"keep_ckpt_ids": True},
        }
        checkpoint["meta"] = {key: checkpoint["meta"][key] for key in ("epoch", "iter", "seed")}
        checkpoint["meta"]["diverged"] = getattr(runner, "diverged", None)
        checkpoint["param_schedulers"] = [
            {key: value for key, value in state.items() if not callable(value)}
            for state in checkpoint.get("param_schedulers", [])
        ]
        sign(checkpoint, getattr(runner, "made_by", ""))


class Divergence(Hook):
    """Notes in ``runner.diverged`` the first epoch whose loss was not finite; a run that is resumed keeps the note."""

    def after_load_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        runner.diverged = checkpoint["meta"].get("diverged")

    def after_train_epoch(self, runner: Any) -> None:
        if getattr(runner, "diverged", None) is None and not math.isfinite(mean_loss(runner)):
            runner.diverged = runner.epoch + 1


def mean_loss(runner: Any) -> float:
    """Mean training loss over the current epoch."""
    return float(runner.message_hub.get_scalar("train/loss").mean(len(runner.train_dataloader)))


class EpochBar(Hook):
    """Draws a bar over all iterations of a run, with the loss, on a terminal."""

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
    """A line in the log an epoch: mean loss and the learning rate."""

    def after_train_epoch(self, runner: Any) -> None:
        loss = mean_loss(runner)
        rate = runner.optim_wrapper.get_lr()["lr"][0]
        runner.logger.info(f"epoch {runner.epoch + 1}/{runner.max_epochs}: loss {loss:.4f}, learning rate {rate:.3g}")


def seed_worker(worker_id: int) -> None:
    """Seed a data-loading worker's Python and NumPy from what PyTorch gave it: by epoch and by worker."""
    seed = torch.initial_seed() % 2**32
    random.seed(seed)
    np.random.seed(seed)
