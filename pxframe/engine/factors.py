"""Factors: multipliers that the data form. Attention weights, squeeze-excite's, a layer norm's 1 / sigma.

A *factor* depends on the input, but multiplies what passes without being passed itself: it carries no path. Softmax,
sigmoid and the like make factors, and so does every operation whose inputs are factors or constants. What a factor
counts for is the reading's business, as with the gates of activations, which are factors too:

* in f it is what the model computes;
* a reading that replays f multiplies by f's value *squared*, like any gate;
* an open reading knows no data. A softmax is then uniform, a fixed coefficient like average pooling's, over what an
  added mask of minus infinity leaves; any other factor is 1.

So no path runs through what *only* forms a factor: the queries and keys of attention, the reducing and expanding layers
of squeeze-excite. Path-based scorers (PX, SynFlow) give their weights a score of exactly 0.
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
#: Operations that make a factor of an activation. After the gates, what normalisations written out divide by.
SOURCES = _SOFTMAX | {"sigmoid", "hardsigmoid", "pow", "var", "std", "var_mean", "linalg_vector_norm"}


def find_factors(nodes: list[fx.Node], active: Set[fx.Node]) -> set[fx.Node]:
    """Those of the ``active`` nodes (they depend on the input) that carry no path."""
    factors: set[fx.Node] = set()
    for node in nodes:
        if node in active and (operation(node) in SOURCES or all(n in factors for n in _among(active, node))):
            factors.add(node)
    return factors


def needed(
    nodes: list[fx.Node], active: Set[fx.Node], factors: Set[fx.Node], outputs: list[fx.Node]
) -> tuple[frozenset[fx.Node], frozenset[fx.Node]]:
    """What a path network has to know on its way to ``outputs``: nodes for their paths, and factors."""
    wanted = set(outputs)
    for node in reversed(nodes):
        if node in wanted and operation(node) not in SOURCES:
            wanted.update(_among(active, node))
    return frozenset(n for n in wanted if n not in factors), frozenset(n for n in wanted if n in factors)


def masks(node: fx.Node, active: Set[fx.Node]) -> list[fx.Node]:
    """Constants added to the scores that ``node`` takes the softmax of, and so read by :func:`open_factor`."""
    scores = node.args[0] if operation(node) in _SOFTMAX else None
    if not isinstance(scores, fx.Node):
        return []
    summands = scores.args[: {"add": 2, "baddbmm": 1}.get(operation(scores), 0)]
    return [n for n in summands if isinstance(n, fx.Node) and n not in active]


def open_factor(node: fx.Node, active: Set[fx.Node], value: Callable[[fx.Node], Any], like: Tensor) -> Any:
    """A factor without the data.

    Args:
        value: gives the values of constants, and the open values of other factors.
        like: of the dtype and device wanted.
    """
    if operation(node) in _SOFTMAX:
        scores, dim = like.new_zeros(node.meta["val"].shape), cast(int, node.args[1])
        for mask in masks(node, active):
            scores = scores.masked_fill(torch.isneginf(value(mask)), -torch.inf)
        return scores.softmax(dim).nan_to_num(0.0)  # with everything masked, nothing is attended to
    if operation(node) in SOURCES:
        return pytree.tree_map(lambda v: like.new_ones(v.shape), node.meta["val"])
    if "view" in operation(node):  # the open value may lie in memory otherwise than f's did
        return value(node.all_input_nodes[0]).reshape(node.args[1])
    args, kwargs = map_arg((node.args, node.kwargs), value)
    return node.target(*args, **kwargs)  # type: ignore[operator]


def _among(active: Set[fx.Node], node: fx.Node) -> list[fx.Node]:
    return [n for n in node.all_input_nodes if n in active]
