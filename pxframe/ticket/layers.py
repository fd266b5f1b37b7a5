"""What a ticket keeps: in one line, and of each layer with what it costs."""

from __future__ import annotations

from dataclasses import dataclass

from pxframe.base.errors import printable
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


def describe(ticket: Ticket) -> str:
    """One line: scorer, sparsity, weights left, emptied layers, and weights that no method could prune."""
    scorer = ticket.meta.get("scorer", "a ticket")
    rest = f"; nothing left of {', '.join(ticket.emptied)}" if ticket.emptied else ""
    dense = ticket.meta.get("left_dense") or []
    rest += f"; not prunable, left dense: {', '.join(dense)}" if dense else ""
    rest += f"; collapsed: {ticket.meta['collapsed']}" if ticket.meta.get("collapsed") else ""
    return printable(f"{scorer} kept {ticket.kept:,} of {ticket.total:,} weights ({ticket.sparsity:.2%} sparse){rest}")
