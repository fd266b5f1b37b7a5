"""Factors: multipliers computed from the data, such as attention weights or a layer norm's 1 / sigma.

A *factor* depends on the input and multiplies activations, but carries no path itself. Softmax, sigmoid and similar
operations make factors, and so does every operation whose inputs are all factors or constants (``roles.py``). Like the
gate of an activation, a factor has a different value in each network:

* in f it has the value that the model computes;
* a reading that replays f multiplies by that value *squared*;
* an open reading knows no data: a softmax is uniform over the positions that an added mask of minus infinity leaves,
  which makes it a fixed coefficient like average pooling's; any other factor is 1, and so is what 1 - factor makes. A
  comparison holds, and so does its opposite; a choice between a factor and a constant takes the factor.

The recorded side of a product of two activations counts as a factor in that product. With its gates open it is 1 in an
elementwise product; in a matrix product it takes the mean of the rows or columns that it sums, as a softmax does.

No path runs through layers that *only* form a factor: the queries and keys of attention, the two layers of
squeeze-excite. Their weights score 0, unless factors share (``sharing.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Set
from typing import Any, cast

import torch
from torch import Tensor, fx
from torch.fx.node import map_arg
from torch.utils import _pytree as pytree

from pxframe.engine.factors.roles import is_source
from pxframe.engine.graph import Trace
from pxframe.engine.reading import Reading, powered
from pxframe.engine.rules.table import SOFTMAX, operation


def masks(node: fx.Node, active: Set[fx.Node]) -> list[fx.Node]:
    """The constants that are added to a softmax node's input; :func:`open_factor` reads them."""
    scores = node.args[0] if operation(node) in SOFTMAX else None
    if not isinstance(scores, fx.Node):
        return []
    summands = scores.args[: {"add": 2, "baddbmm": 1}.get(operation(scores), 0)]
    return [n for n in summands if isinstance(n, fx.Node) and n not in active]


def multiplier(node: fx.Node, trace: Trace, reading: Reading, value: Callable[[fx.Node], Any], like: Tensor) -> Tensor:
    """What a factor, or a recorded side of a product, counts for in a reading.

    Args:
        value: returns the value in f of a node if the reading replays f, else the open value of a factor.
        like: a tensor of the wanted dtype and device.
    """
    if reading.replay:
        return value(node).to(like.dtype).square()
    if node not in trace.factors or node in trace.data:
        return like.new_ones(()).expand(node.meta["val"].shape)
    return powered(value(node).to(like.dtype), reading.power)


def open_factor(node: fx.Node, trace: Trace, value: Callable[[fx.Node], Any], like: Tensor) -> Any:
    """The value of a factor in an open reading, which knows no data.

    Args:
        value: returns the value of a constant node, or the open value of another factor.
        like: a tensor of the wanted dtype and device.
    """
    if operation(node) in SOFTMAX:
        scores, dim = like.new_zeros(node.meta["val"].shape), cast(int, node.args[1])
        for mask in masks(node, trace.active):
            scores = scores.masked_fill(torch.isneginf(value(mask)), -torch.inf)
        return scores.softmax(dim).nan_to_num(0.0)  # a row that is masked everywhere attends to nothing
    made_here = any(n in trace.active and n not in trace.factors for n in node.all_input_nodes)
    complement = operation(node) == "rsub" and not isinstance(node.args[1], fx.Node)
    opposite = operation(node) in ("logical_not", "bitwise_not")
    if made_here or complement or opposite or is_source(node) or node in trace.data:
        return pytree.tree_map(lambda v: open_ones(v, like), node.meta["val"])
    chosen = _chosen(node, trace)
    if chosen is not None:
        return value(chosen).expand(node.meta["val"].shape)
    if "view" in operation(node):  # the open value may have other strides than f's value
        return value(node.all_input_nodes[0]).reshape(node.args[1])
    args, kwargs = map_arg((node.args, node.kwargs), lambda n: _of_dtype(value(n), like))
    return node.target(*args, **kwargs)  # type: ignore[operator]


def open_ones(described: Tensor, like: Tensor) -> Tensor:
    """Ones of the shape of ``described``, in the dtype of ``like``; true where it holds truth values."""
    return like.new_ones(described.shape, dtype=torch.bool if described.dtype == torch.bool else like.dtype)


def _chosen(node: fx.Node, trace: Trace) -> fx.Node | None:
    """The factor that a choice by the data takes with its gates open; None for other nodes, and without a factor."""
    order = {"where": (0, 1, 2), "masked_fill": (1, 0, 2)}.get(operation(node))  # the condition first
    if order is None:
        return None
    condition, *branches = (node.args[at] for at in order)
    found = [n for n in branches if isinstance(n, fx.Node) and n in trace.factors]
    return found[0] if found and condition in trace.active else None


def _of_dtype(value: Any, like: Tensor) -> Any:
    is_real = isinstance(value, Tensor) and value.is_floating_point()
    return value.to(like.dtype) if is_real else value
