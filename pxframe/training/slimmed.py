"""A task's model without the channels that a ticket removed, before it is trained."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from pxframe.base.errors import PxframeError, within
from pxframe.running.undisturbed import seeded
from pxframe.slimming.build import Slim, slim
from pxframe.slimming.files import save_slim
from pxframe.speed.shares import KINDS, share_left
from pxframe.ticket.ticket import Ticket
from pxframe.training.hooks.weights import fitting


class Slimming:
    """Makes a task's model smaller when its runner is built, and writes it when it has been trained.

    Args:
        ticket: of the backbone; the model starts from the ticket's starting values where it has any.
        classifier: name of the backbone's classifier, which a task may have replaced.
        device: that the model will be trained on; times are taken there.

    Attributes:
        shares: what is left of the dense model's cost, by kind (:data:`pxframe.speed.shares.KINDS`).
    """

    def __init__(self, ticket: Ticket, classifier: str, device: str) -> None:
        self.ticket, self.classifier, self.device = ticket, classifier, device
        self.shares: dict[str, float] = {}
        self._made: tuple[nn.Module, Slim, Tensor] | None = None  # the dense model, the slim one, images

    def __call__(self, model: nn.Module, data: Dataset) -> nn.Module:
        """The small model.

        Args:
            model: gives its outputs for images ``[N, 3, H, W]``.
            data: the training images; one is read to know their size.

        Raises:
            PxframeError: the model cannot be slimmed.
        """
        with seeded(0, torch.device("cpu")):
            images = torch.randn(2, *data[0]["inputs"].shape)
        ticket = fitting(self.ticket, model, self.classifier)
        whole = copy.deepcopy(model)
        ticket.rewind(whole)
        with within("slim"):
            try:
                found = slim(whole, ticket, images)
            except (TypeError, AttributeError) as error:
                raise PxframeError(f"the task's model is no function of a tensor of images ({error})") from error
        dense, small = (copy.deepcopy(m).to(self.device).eval() for m in (whole, found.model))
        image = images[:1].to(self.device)
        self.shares = {kind: share_left(kind, dense, small, image) for kind in KINDS}
        self._made = whole, found, images
        return found.model

    def save(self, folder: Path, model: nn.Module) -> None:
        """Write the trained model, by :func:`pxframe.slimming.files.save_slim`."""
        assert self._made is not None
        whole, found, images = self._made
        save_slim(folder, replace(found, model=model), whole, images.to(next(model.parameters()).device))
