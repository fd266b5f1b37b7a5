"""What a ticket records about how it was made."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from pxframe.base.errors import PxframeError
from pxframe.base.versions import versions
from pxframe.network.net import Net
from pxframe.pruning.plan import Plan
from pxframe.running.inputs import shapes
from pxframe.scoring.flops import macs
from pxframe.scoring.scorer import Scorer
from pxframe.ticket.file import fingerprint


def provenance(method: Scorer, plan: Plan, net: Net, example: Any) -> dict[str, Any]:
    """The scorer, the plan, the weights and the software a ticket was made with; JSON-able."""
    return {
        "scorer": method.name,
        "options": method.options(),
        **plan.describe(),
        "fingerprint": fingerprint(net.weights),
        "input": None if example is None else shapes(example),
        "versions": versions(),
    }


def costs_of(net: Net, example: Any, required: bool) -> dict[str, int] | None:
    """Multiply-accumulates of one input by prunable weight; None without an input, or without a graph to read.

    Raises:
        PxframeError: they are ``required`` and cannot be had.
    """
    if example is None:
        if required:
            raise PxframeError("granularity 'channel' with compute_aware needs one batch, to know the size of the maps")
        return None
    with suppress(*() if required else (PxframeError,)):
        costs = macs(net.trace(net.one(example)))
        return {name: costs[name] for name in net.masks if name in costs}
    return None
