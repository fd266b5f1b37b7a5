"""Weights that are zero although the ticket keeps them: training will move them, so what they multiply must stay.

A head that starts at zero reads nothing yet, and a residual branch whose last norm starts at zero adds nothing yet.
While a network is slimmed, such weights hold a number in place of zero that is too small to be seen in any output.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def mark(model: nn.Module) -> None:
    """Put marks in place of zeros. Biases only add, so zeros of theirs are not marked."""
    with torch.no_grad():
        for parameter in _factors(model):
            parameter.masked_fill_(parameter == 0, torch.finfo(parameter.dtype).smallest_normal / 256)


def unmark(model: nn.Module) -> None:
    """Put zeros in place of marks, and of what became of a mark where weights were added."""
    with torch.no_grad():
        for parameter in _factors(model):
            parameter.masked_fill_(parameter.abs() < torch.finfo(parameter.dtype).smallest_normal, 0)


def _factors(model: nn.Module) -> list[Tensor]:
    return [p for n, p in model.named_parameters() if p.is_floating_point() and not n.endswith("bias")]
