"""Factors: multipliers computed from the data, such as attention weights or a layer norm's 1 / sigma.

A *factor* depends on the input and multiplies activations, but carries no path itself. Softmax, sigmoid and similar
operations make factors, and so does every operation whose inputs are all factors or constants. Like the gate of an
activation, a factor has a different value in each network:

* in f it has the value that the model computes;
* a reading that replays f multiplies by that value *squared*;
* an open reading knows no data: a softmax is uniform over the positions that an added mask of minus infinity leaves,
  which makes it a fixed coefficient like average pooling's; any other factor is 1.

No path runs through layers that *only* form a factor: the queries and keys of attention, the two layers of
squeeze-excite. Scorers that read paths give the weights of such layers a score of exactly 0.
"""

from __future__ import annotations

from collections.abc import Callable, Set
from typing import Any, cast

import torch
from torch import Tensor, fx
from torch.fx.node import map_arg
from torch.utils import _pytree as pytree

from pxframe.engine.rules.table import operation

_SOFTMAX = frozenset(("softmax", "_softmax", "_safe_softmax"))
#: Operations that turn an activation into a factor: first gates, then the divisors of normalisations written out.
SOURCES = _SOFTMAX | {"sigmoid", "hardsigmoid", "pow", "var", "std", "var_mean", "linalg_vector_norm"}


def find_factors(nodes: list[fx.Node], active: Set[fx.Node]) -> set[fx.Node]:
    """The nodes among ``active`` (the nodes that depend on the input) that carry no path."""
    factors: set[fx.Node] = set()
    for node in nodes:
        if node in active and (operation(node) in SOURCES or all(n in factors for n in _among(active, node))):
            factors.add(node)
    return factors


def needed(
    nodes: list[fx.Node], active: Set[fx.Node], factors: Set[fx.Node], outputs: list[fx.Node]
) -> tuple[frozenset[fx.Node], frozenset[fx.Node]]:
    """The nodes whose path values, and the factors whose values, a path network needs to reach ``outputs``."""
    wanted = set(outputs)
    for node in reversed(nodes):
        if node in wanted and operation(node) not in SOURCES:
            wanted.update(_among(active, node))
    return frozenset(n for n in wanted if n not in factors), frozenset(n for n in wanted if n in factors)


def masks(node: fx.Node, active: Set[fx.Node]) -> list[fx.Node]:
    """The constants that are added to a softmax node's input; :func:`open_factor` reads them."""
    scores = node.args[0] if operation(node) in _SOFTMAX else None
    if not isinstance(scores, fx.Node):
        return []
    summands = scores.args[: {"add": 2, "baddbmm": 1}.get(operation(scores), 0)]
    return [n for n in summands if isinstance(n, fx.Node) and n not in active]


def open_factor(node: fx.Node, active: Set[fx.Node], value: Callable[[fx.Node], Any], like: Tensor) -> Any:
    """The value of a factor in an open reading, which knows no data.

    Args:
        value: returns the value of a constant node, or the open value of another factor.
        like: a tensor of the wanted dtype and device.
    """
    if operation(node) in _SOFTMAX:
        scores, dim = like.new_zeros(node.meta["val"].shape), cast(int, node.args[1])
        for mask in masks(node, active):
            scores = scores.masked_fill(torch.isneginf(value(mask)), -torch.inf)
        return scores.softmax(dim).nan_to_num(0.0)  # a row that is masked everywhere attends to nothing
    if operation(node) in SOURCES:
        return pytree.tree_map(lambda v: like.new_ones(v.shape), node.meta["val"])
    if "view" in operation(node):  # the open value may have other strides than f's value
        return value(node.all_input_nodes[0]).reshape(node.args[1])
    args, kwargs = map_arg((node.args, node.kwargs), value)
    return node.target(*args, **kwargs)  # type: ignore[operator]


def _among(active: Set[fx.Node], node: fx.Node) -> list[fx.Node]:
    return [n for n in node.all_input_nodes if n in active]
