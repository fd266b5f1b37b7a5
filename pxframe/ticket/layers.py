"""The layers of a ticket: how much of each is kept, and what it costs."""

from __future__ import annotations

from dataclasses import dataclass

from pxframe.ticket.ticket import Ticket


@dataclass(frozen=True)
class Layer:
    """One prunable weight.

    Attributes:
        shape: the weight's shape; the first dimension counts the output units.
        kept: number of weights kept.
        total: number of weights.
        units: number of output units with at least one weight kept.
        macs: multiply-accumulates for one input, with the kept weights and with all weights; None if the ticket was
            made without data.
    """

    name: str
    shape: tuple[int, ...]
    kept: int
    total: int
    units: int
    macs: tuple[int, int] | None

    @property
    def outputs(self) -> int:
        """The number of output units."""
        return self.shape[0] if self.shape else 1


def layers(ticket: Ticket) -> list[Layer]:
    """The ticket's layers in their order.

    The kept share of a layer's multiply-accumulates is its density: each weight of a layer is used equally often.
    """
    dense = ticket.meta.get("macs")
    found = []
    for name, mask in ticket.masks.items():
        kept, total = int(mask.count_nonzero()), mask.numel()
        cost = dense.get(name) if isinstance(dense, dict) else None
        macs = (cost * kept // total, cost) if type(cost) is int and total else None
        units = int(mask.flatten(1).any(1).count_nonzero()) if mask.ndim > 1 else kept
        found.append(Layer(name, tuple(mask.shape), kept, total, units, macs))
    return found
