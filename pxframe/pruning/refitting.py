"""Refitting a ticket that is there already: the same mask, other values to start from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from pxframe.base import ranks
from pxframe.base.errors import PxframeError, blaming
from pxframe.network.net import Net
from pxframe.passes.batches import Batches
from pxframe.plugin.host import host
from pxframe.pruning.arguments import device_of
from pxframe.refits.table import Refit, build_refit
from pxframe.running.undisturbed import derived_seed, seeded
from pxframe.running.wrappers import unwrapped
from pxframe.scoring.precision import full_precision
from pxframe.selection.checks import check_outputs_first
from pxframe.selection.rows import fused_rows, held_rows
from pxframe.ticket.ticket import Ticket


def refit(
    model: nn.Module,
    ticket: Ticket,
    batches: Iterable[Any],
    refit: str | Mapping[str, Any] | Refit = "obs",
    seed: int = 0,
) -> Ticket:
    """The ticket with other values to start from, as ``refit`` gives them; model and ticket are left as they were.

    The result equals that of :func:`pxframe.prune` with this ``refit`` and the settings that made the ticket. Where
    torch.distributed runs several ranks, every rank must call this; all of them get the ticket of rank 0.

    Args:
        model: the network that the ticket was made from.
        ticket: its masks stay as they are. If it has starting values, they are what is refitted.
        batches: iterable of ``(input, target)`` pairs, of which the inputs are read; see :func:`pxframe.score`.
        refit: ``"obs"`` (the default), ``"bn"``, ``"rescale"``, ``"reinit"``, or ``dict(type=..., **options)``; see
            :func:`pxframe.prune`.
        seed: of ``"reinit"``.

    Raises:
        PxframeError: bad arguments; the ticket does not fit the model; the model fails on a batch.
    """
    method, model = build_refit(refit), unwrapped(model)
    if method.when != "last":
        raise PxframeError(f"refit {method.name!r}: the ticket has been made, so there are no rounds: leave out 'when'")
    ticket.check_own(model)
    made = ranks.from_first(lambda: _refitted(model, ticket, batches, method, seed))
    host().notify("pxframe_ticket_made", ticket=made)
    return made


def _refitted(model: nn.Module, ticket: Ticket, batches: Iterable[Any], refit: Refit, seed: int) -> Ticket:
    device = device_of(model)
    data = Batches(batches, device)
    with full_precision(device, None), seeded(derived_seed(seed, "pruning"), device) as generator:
        first = data.first()
        if refit.reads and first is None:
            raise PxframeError(f"refit {refit.name!r} reads inputs: 'batches' gave no (input, target) pair")
        net = Net(model, {name: mask.to(device) for name, mask in ticket.masks.items()}, generator=generator)
        if refit.outputs_first:
            check_outputs_first(f"refit {refit.name!r}", model, net, None if first is None else first[0])
        with blaming("the ticket's 'exclude'"):
            patterns = ticket.meta.get("exclude") or ()
            held = held_rows(net.masks, fused_rows(net, None if first is None else first[0], patterns), patterns)
        start = {name: value.to(device) for name, value in ticket.start.items()}
        with blaming(f"refit {refit.name!r}"):
            refit.check(net, data)
            refit.check_start(net, start)
            values = refit.values(net, data, {**net.buffers, **net.parameters, **start}, held)
    return Ticket(ticket.masks, {**ticket.meta, "refit": refit.describe()}, {**start, **values})
