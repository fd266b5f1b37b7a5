"""What is left of a network, layer by layer, as a ticket alone tells it."""

from __future__ import annotations

from dataclasses import dataclass

from pxframe.ticket.ticket import Ticket


@dataclass(frozen=True)
class Layer:
    """One prunable weight.

    Attributes:
        shape: of the weight; its first dimension are the output units.
        kept: number of weights kept, of ``total``.
        units: number of output units with any weight kept, of ``outputs``.
        macs: multiply-accumulates with the kept weights for one input, and with all; None where the ticket was made
            without data, or by an earlier version.
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
    """The ticket's layers in their order. Every weight of one layer is multiplied with equally often."""
    dense = ticket.meta.get("macs") or {}
    found = []
    for name, mask in ticket.masks.items():
        kept, total = int(mask.count_nonzero()), mask.numel()
        macs = (dense[name] * kept // total, dense[name]) if name in dense and total else None
        units = int(mask.flatten(1).any(1).count_nonzero()) if mask.ndim > 1 else kept
        found.append(Layer(name, tuple(mask.shape), kept, total, units, macs))
    return found
