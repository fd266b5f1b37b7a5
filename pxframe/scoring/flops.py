"""The cost of each layer in multiply-accumulates, read from the model's graph."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from math import prod
from typing import Any

from torch import fx

from pxframe.engine.graph import Trace
from pxframe.engine.rules.table import CONVOLUTIONS, PRODUCTS, is_transposed, operation


def macs(trace: Trace) -> dict[str, int]:
    """Multiply-accumulates of a forward pass on the trace's batch, by name of the weight."""
    costs: dict[str, int] = defaultdict(int)
    for node, name, at in multiplications(trace):
        costs[name] += _cost(node, at)
    return dict(costs)


def multiplications(trace: Trace) -> Iterator[tuple[fx.Node, str, int]]:
    """The nodes that multiply by a parameter: node, name of the parameter, its position among the arguments."""
    for node in trace.nodes:
        positions = PRODUCTS.get(operation(node), ()) if node.op == "call_function" else ()
        for at in positions:
            name = trace.parameter(node.args[at])
            if name is not None:
                yield node, name, at
                break


def inputs_first(trace: Trace) -> list[str]:
    """Names of the weights whose first dimension is the input: in transposed convolutions and in ``x @ weight``."""
    found = []
    for node, name, at in multiplications(trace):
        if operation(node) in CONVOLUTIONS:
            turned = is_transposed(node)
        else:
            right = at > min(PRODUCTS[operation(node)])
            turned = right and operation(node) != "linear" and node.args[at] in trace.tensors
        if turned:
            found.append(name)
    return found


def _cost(node: fx.Node, at: int) -> int:
    """The number of output elements times the number of products that are summed in each."""
    weight = _shape(node.args[at])
    if operation(node) in CONVOLUTIONS:
        if is_transposed(node):  # every input element is multiplied with [out, *kernel]
            return prod(_shape(node.args[0])) * prod(weight[1:])
        return prod(_shape(node)) * prod(weight[1:])
    return prod(_shape(node)) * _shape(node.args[min(PRODUCTS[operation(node)])])[-1]


def _shape(node: Any) -> tuple[int, ...]:
    return tuple(node.meta["val"].shape)
