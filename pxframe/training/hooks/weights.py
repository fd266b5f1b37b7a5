"""Hooks on the weights of a run: what it begins with, a ticket or a given state, and what stays as it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.hooks import Hook
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pxframe.base.errors import PxframeError
from pxframe.ticket.ticket import Ticket


class TicketHook(Hook):
    """Applies a ticket when training starts, and keeps its pruned weights at zero until training ends.

    If the ticket has starting values (:attr:`pxframe.Ticket.start`), training starts from them. A run that is resumed
    keeps the weights of its checkpoint.

    mmengine calls ``before_train`` after it has initialised the weights and loaded a checkpoint.

    Args:
        ticket: its masks must fit the model.
        classifier: name of the backbone's classifier (:meth:`pxframe.Backbone.classifier`). The model may lack this
            module, because a task puts its own head in the place of the classifier. The ticket's masks of it are then
            left out.
    """

    def __init__(self, ticket: Ticket, classifier: str = "") -> None:
        self.ticket = ticket
        self.classifier = classifier

    def before_train(self, runner: Any) -> None:
        ticket, resumed = fitting(self.ticket, runner.model, self.classifier), runner.iter > 0
        (ticket.apply if resumed else ticket.rewind)(runner.model)
        ticket.guard(runner.optim_wrapper.optimizer, runner.model)


def fitting(ticket: Ticket, model: nn.Module, classifier: str) -> Ticket:
    """The ticket; without its masks of the backbone's classifier where ``model`` has another head in its place.

    Raises:
        PxframeError: the ticket does not fit.
    """
    try:
        ticket.check(model)
    except PxframeError:
        rest = {name: mask for name, mask in ticket.masks.items() if not name.startswith(f"{classifier}.")}
        if not classifier or len(rest) == len(ticket.masks):
            raise
        return Ticket(rest, ticket.meta, ticket.start)
    return ticket


class StateHook(Hook):
    """Sets the model to ``state`` when training starts. The hook holds a copy of ``state``.

    Args:
        state: a ``state_dict()`` that fits the model.
    """

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        self._state = {name: value.clone() for name, value in state.items()}

    def before_train(self, runner: Any) -> None:
        runner.model.load_state_dict(self._state)


class FreezeHook(Hook):
    """Keeps ``model.backbone`` as it is while the rest of the model is trained.

    mmengine puts the whole model into training mode at the start of every epoch, so the parts are put back before
    every step.

    Args:
        norms_only: the backbone's batch norms stay in evaluation mode: they normalise by the statistics they came with,
            and their gains and shifts are trained. Else the whole backbone does, and takes no gradients.
    """

    def __init__(self, norms_only: bool) -> None:
        self.norms_only = norms_only

    def before_train(self, runner: Any) -> None:
        if not self.norms_only:
            runner.model.backbone.requires_grad_(False)

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        backbone = runner.model.backbone
        for module in backbone.modules() if self.norms_only else [backbone]:
            if not self.norms_only or isinstance(module, _BatchNorm):
                module.eval()
