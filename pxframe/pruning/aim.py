"""The search for the sparsity of channels that leaves a given share of the FLOPs, the parameters or the time."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from scipy.optimize import brentq
from torch import nn

from pxframe.base.errors import PxframeError
from pxframe.pruning.target import Target
from pxframe.running.inputs import few
from pxframe.running.undisturbed import copied
from pxframe.slimming.build import slimmed
from pxframe.speed.shares import KINDS, share_left
from pxframe.ticket.ticket import Ticket

_log = logging.getLogger(__name__)
#: How far a share may be from its target, and how near ends the search; relative to the target.
TOLERANCE, _NEAR = 0.02, 0.005


@dataclass(frozen=True)
class Reached:
    """What a search found: ``share`` of the dense network's cost is left at ``sparsity``."""

    sparsity: float
    share: float


def reach(
    target: Target,
    model: nn.Module,
    example: Any,
    prune_at: Callable[[float], Ticket],
    agreed: Callable[[float], float] = float,
    allow_collapse: bool = False,
) -> Reached:
    """Look for the sparsity at which the slim network comes nearest to a target.

    The share left falls with the sparsity, in steps, so its crossing with the target is bracketed (Brent's method). The
    cost is that of the network without the removed channels, for the first sample of ``example``
    (:func:`pxframe.speed.shares.share_left`).

    Args:
        model: as it was scored; it is not changed.
        example: inputs of the model.
        prune_at: gives the ticket at a sparsity in (0, 1); one that collapsed says so in its ``meta``.
        agreed: what all processes take for a share that one of them has found.
        allow_collapse: take the smallest network that still works, with a warning, if none of them is small enough.

    Raises:
        PxframeError: no network that still works is small enough.
    """
    example = few(example, 1)
    dense = copied(model).eval()
    found: list[Reached] = []
    collapsed = ""

    def excess(sparsity: float) -> float:
        nonlocal collapsed
        if not 0 < sparsity < 1:  # the ends are known: all is left, and nothing
            return (0.0 if sparsity else 1.0) - target.share
        ticket = prune_at(sparsity)
        if ticket.meta.get("collapsed"):
            collapsed = ticket.meta["collapsed"]
            return -target.share
        share = agreed(share_left(target.kind, dense, slimmed(model, ticket, example).model.eval(), example))
        found.append(Reached(sparsity, share))
        return 0.0 if abs(share / target.share - 1) <= _NEAR else share - target.share

    brentq(excess, 0.0, 1.0, xtol=0.25 / _channels(model), disp=False)
    best = min(found, key=lambda one: abs(one.share - target.share), default=Reached(0.0, 1.0))
    if abs(best.share / target.share - 1) > TOLERANCE:
        what = f"{best.share:.1%} of the {KINDS[target.kind]}"
        if any(one.share < target.share for one in found):
            text = f"{target.kind}={target.share}: the nearest found is {what}, since only whole channels go"
        else:
            why = f" ({collapsed.partition(';')[0]})" if collapsed else ""
            text = (
                f"{target.kind}={target.share}: the smallest network found that still works has {what}{why}; ask for "
                f"more, exclude less, or take granularity dict(type='channel', groups='mean'): layers that go together "
                f"then get smaller together"
            )
            if not allow_collapse:
                raise PxframeError(text)
        _log.warning("%s", text)
    return best


def _channels(model: nn.Module) -> int:
    """How many output channels the model's layers have, at least; a step of sparsity is one of them or more."""
    return sum(len(p) for p in model.parameters() if p.ndim > 1)
