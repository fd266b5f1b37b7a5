"""The width that a ticket leaves: output units that keep a weight, and those that still join input and output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from pxframe.network.net import Net
from pxframe.passes.batches import Batches
from pxframe.refits.fan_in import fan_in
from pxframe.running.undisturbed import derived_seed, seeded
from pxframe.running.wrappers import unwrapped
from pxframe.scoring.precision import full_precision
from pxframe.ticket.ticket import Ticket


@dataclass(frozen=True)
class Width:
    """One prunable weight.

    Attributes:
        name: of the weight.
        units: number of its output units: channels, features, and rows of a fused weight.
        kept: number of those with a weight left.
        connected: number of those with a weight that lies on a path of kept weights from the input to an output.
    """

    name: str
    units: int
    kept: int
    connected: int


def widths(model: nn.Module, ticket: Ticket, inputs: Any) -> list[Width]:
    """The width of each layer of ``model`` pruned by ``ticket``, in the ticket's order; nothing is changed.

    A unit that keeps weights may still do nothing: nothing arrives at it, or nothing reads it. Paths also lead through
    queries, keys and gates. A weight in which a unit is no slice of the first dimension, such as a transposed
    convolution's, has other counts than its channels.

    Args:
        model: the network that the ticket was made from.
        inputs: any batch; only its shape and dtype matter.

    Raises:
        PxframeError: the ticket does not fit the model, or the model's graph cannot be read.
    """
    model = unwrapped(model)
    ticket.check_own(model)
    device = next(model.parameters()).device
    with full_precision(device), seeded(derived_seed(0, "width"), device):
        net = Net(model, {name: mask.to(device) for name, mask in ticket.masks.items()})
        first = Batches([(inputs, None)], device).first()
        assert first is not None
        joined = fan_in(net, first[0])
    kept = {name: mask.flatten(1).any(1) for name, mask in ticket.masks.items()}
    counts = torch.stack([torch.stack([kept[n].sum(), (joined[n] > 0).sum().cpu()]) for n in kept]).tolist()
    return [Width(name, len(kept[name]), *both) for name, both in zip(kept, counts, strict=True)]


def depth(found: Sequence[Width]) -> int:
    """The number of layers that some path from the input to an output leads through."""
    return sum(width.connected > 0 for width in found)
