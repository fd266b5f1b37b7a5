"""The pruned entries of one weight: setting them to zero, whatever they hold, as cheaply as memory allows."""

from __future__ import annotations

import weakref

import torch
from torch import Tensor

_INTEGER = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Pruned:
    """The mask of one weight, laid out like the weight, and what is known about the weight's gradient.

    The object does not hold the weight: the weight's gradient hook holds this object, and a cycle through a hook would
    keep a deleted model in memory.

    Attributes:
        keep: bool mask, true where the weight is kept. It follows the weight's device and memory layout.
    """

    def __init__(self, weight: Tensor, mask: Tensor) -> None:
        self.keep = mask
        self._layout: tuple[torch.device, tuple[int, ...]] | None = None
        self._zeroed: tuple[weakref.ref[Tensor], int] | None = None
        self.follow(weight)

    def follow(self, weight: Tensor) -> None:
        """Copy the mask to the device and layout of ``weight``, if the model was moved or laid out anew."""
        layout = (weight.device, weight.stride())
        if layout != self._layout:
            self.keep = torch.empty_like(weight, dtype=torch.bool, requires_grad=False).copy_(self.keep)
            self._layout = layout

    def zero(self, tensor: Tensor) -> None:
        """Set the pruned entries of a dense ``tensor`` of the weight's shape to +0 in place."""
        keep = self.keep if self.keep.device == tensor.device else self.keep.to(tensor.device)
        integer = _INTEGER.get(tensor.element_size())
        if integer is None:
            tensor.detach().masked_fill_(~keep, 0)
        else:
            # A product of integers is exact where a product of floats is not (0 * nan is nan). On a CPU masked_fill_
            # takes ten times as long, and a mask as wide as the weight is no faster and takes four times the memory.
            tensor.detach().view(integer).mul_(keep)

    def zero_gradient(self, weight: Tensor) -> bool:
        """Zero the pruned entries of the weight's gradient, unless nobody wrote to it since the last call.

        Returns:
            Whether they are zero now. A sparse gradient is left as it is.
        """
        gradient = weight.grad
        if gradient is None:
            return True
        if gradient.layout != torch.strided:
            return False
        if self._zeroed is None or self._zeroed[0]() is not gradient or self._zeroed[1] != gradient._version:
            self.follow(weight)
            self.zero(gradient)
            self._zeroed = (weakref.ref(gradient), gradient._version)
        return True

    def forget_gradient(self) -> None:
        """Hold no reference to the gradient: torch may refuse to move a model while one exists."""
        self._zeroed = None
