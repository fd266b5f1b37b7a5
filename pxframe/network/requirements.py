"""Conditions on the device that must hold, and what to say where one does not."""

from __future__ import annotations

import torch
from torch import Tensor

from pxframe.base.errors import PxframeError


class Requirements:
    """Gathers conditions while a round of scoring runs, and asks the device for all of them at once, after it."""

    def __init__(self) -> None:
        self._gathered: list[tuple[Tensor, str]] = []

    def add(self, condition: Tensor, message: str) -> None:
        """See :meth:`pxframe.network.net.Net.require`."""
        self._gathered.append((condition, message))

    def settle(self) -> None:
        """See :meth:`pxframe.network.net.Net.settle`."""
        gathered = self._gathered[:]
        self._gathered.clear()
        if gathered:
            held = torch.stack([condition for condition, _ in gathered]).tolist()
            for (_, message), holds in zip(gathered, held, strict=True):
                if not holds:
                    raise PxframeError(message)
