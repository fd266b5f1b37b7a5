"""What a ticket keeps: in one line, and of each layer with what it costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from pxframe.base.errors import printable, some
from pxframe.ticket.rows import parts
from pxframe.ticket.ticket import Ticket


@dataclass(frozen=True)
class Layer:
    """One prunable weight, or the rows of a fused one that make queries, keys or values.

    Attributes:
        name: the weight's, or the part's in its weight: ``"[q]"``.
        shape: the weight's shape; the first dimension counts the output units.
        kept: number of weights kept.
        total: number of weights.
        units: number of output units with at least one weight kept.
        macs: multiply-accumulates for one input, with the kept weights and with all weights; None if the ticket was
            made without data.
        parts: the queries, keys and values of a fused weight.
    """

    name: str
    shape: tuple[int, ...]
    kept: int
    total: int
    units: int
    macs: tuple[int, int] | None
    parts: tuple[Layer, ...] = ()

    @property
    def outputs(self) -> int:
        """The number of output units."""
        return self.shape[0] if self.shape else 1


def layers(ticket: Ticket) -> list[Layer]:
    """The ticket's layers in their order.

    The kept share of a layer's multiply-accumulates is its density: each weight of a layer is used equally often.
    """
    dense = ticket.meta.get("macs")
    within: dict[str, list[Layer]] = {}
    costs = {name: dense.get(name) if isinstance(dense, dict) else None for name in ticket.masks}
    for name, part, rows in parts(ticket.masks, ticket.meta.get("fused_rows")):
        cost, total = costs[name], ticket.masks[name].numel()
        share = cost * rows.numel() // total if type(cost) is int and total else None
        within.setdefault(name, []).append(_layer(f"[{part}]", rows, share))
    return [_layer(n, mask, costs[n], tuple(within.get(n, ()))) for n, mask in ticket.masks.items()]


def _layer(name: str, mask: Tensor, cost: Any, inside: tuple[Layer, ...] = ()) -> Layer:
    kept, total = int(mask.count_nonzero()), mask.numel()
    macs = (cost * kept // total, cost) if type(cost) is int and total else None
    units = int(mask.flatten(1).any(1).count_nonzero()) if mask.ndim > 1 else kept
    return Layer(name, tuple(mask.shape), kept, total, units, macs, inside)


def describe(ticket: Ticket) -> str:
    """One line: scorer, sparsity, weights left, layers with next to nothing left, weights that could not be pruned."""
    scorer = ticket.meta.get("scorer", "a ticket")
    asked = ticket.meta.get("target") or {}
    rest = "".join(f"; {kind} {ticket.meta.get('reached', 1):.1%}, asked {share:.1%}" for kind, share in asked.items())
    rest += f"; nothing left of {', '.join(ticket.emptied)}" if ticket.emptied else ""
    nearly = [f"{name} ({kept} kept)" for name, kept in ticket.nearly_emptied.items()]
    rest += f"; almost nothing left of {some(nearly, most=8)}" if nearly else ""
    dense = ticket.meta.get("left_dense") or []
    rest += f"; not prunable, left dense: {', '.join(dense)}" if dense else ""
    rest += f"; collapsed: {ticket.meta['collapsed']}" if ticket.meta.get("collapsed") else ""
    return printable(f"{scorer} kept {ticket.kept:,} of {ticket.total:,} weights ({ticket.sparsity:.2%} sparse){rest}")
