"""What share of a network's cost a smaller one has."""

from __future__ import annotations

from typing import Any

from torch import nn

from pxframe.running.undisturbed import undisturbed
from pxframe.speed.clock import take_times
from pxframe.speed.cost import count_macs

#: What a share may be taken of, and what a user calls it.
KINDS = {"flops": "multiply-accumulates", "params": "parameters", "latency": "time of one forward pass"}


def share_left(kind: str, dense: nn.Module, small: nn.Module, example: Any) -> float:
    """The cost of ``small`` divided by that of ``dense``, both in eval mode.

    Args:
        kind: one of :data:`KINDS`. Multiply-accumulates are those of matrix products and convolutions. Times are the
            first quartiles of 60 measurements, taken in turn, where ``example`` is: other work only adds to them.
        example: inputs of both networks.
    """
    if kind == "params":
        one, other = (sum(p.numel() for p in network.parameters()) for network in (small, dense))
        return one / other
    with undisturbed(dense), undisturbed(small):
        if kind == "flops":
            return count_macs(small, example) / count_macs(dense, example)
        times = take_times({"dense": dense, "slim": small}, example, rounds=60)
    return times["slim"][0] / times["dense"][0]
