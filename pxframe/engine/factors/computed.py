"""Weights that are computed from parameters before they are used: normalised, standardised, low-rank, joined.

A path network multiplies by the weight w that f uses, |w|**power. Its score S = dR/du * u is brought back to the
parameters that w is computed from: as much of it as each of them *carries*. What carries is what would carry paths if
the computation were a part of the network. In g v / |v| both g and v do, and the norm is a divisor; in A B + C the
score of an entry is divided between A B and C as their magnitudes are.

The carrier c of w is a positive function of the parameters' values in the path network, and has the shape of w. The
weight in the path network is c times a constant that makes it |w|**power, so dR/dc * c = dR/du * u.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.node import map_arg
from torch.utils import _pytree as pytree

from pxframe.engine.graph import Trace
from pxframe.engine.reading import Reading, powered
from pxframe.engine.rules.norms import BATCH_NORMS
from pxframe.engine.rules.shapes import MOVES, SAME
from pxframe.engine.rules.table import PRODUCTS, operation, unknown
from pxframe.engine.scaled import power_of_two

_SUMS = frozenset(("add", "sub", "rsub"))
_LAYOUTS = MOVES | SAME | {"as_strided", "getitem"}
_LINEAR = _LAYOUTS | {"sum"}
#: What a normalisation subtracts or divides by; none of it carries.
_STATISTICS = frozenset(
    ("mean", "var", "std", "var_mean", "linalg_vector_norm", "norm", "amax", "amin", "max", "min", "argmax")
)


def find_computed(
    nodes: list[fx.Node], active: Set[fx.Node], paths: Set[fx.Node], parameters: Mapping[fx.Node, str]
) -> tuple[dict[fx.Node, str], frozenset[fx.Node]]:
    """The nodes that are a parameter, or a part or layout of one, with its name; and those computed from parameters.

    Args:
        active: the nodes that depend on the input.
        paths: the nodes with path values. What is computed for other nodes alone is left out.
        parameters: the placeholders of parameters, with their names.
    """
    used: set[fx.Node] = set()
    for node in reversed(nodes):
        if node in paths or node in used:
            used.update(n for n in node.all_input_nodes if n not in active)
    moved, computed = dict(parameters), set()
    for node in nodes:
        if node in active or not any(n in moved or n in computed for n in node.all_input_nodes):
            continue
        if operation(node) in _LAYOUTS and node.args[0] in moved and len(node.all_input_nodes) == 1:
            moved[node] = moved[node.args[0]]  # type: ignore[index]
        else:
            computed.add(node)
    return moved, frozenset(computed & used)


class Computed:
    """The weights of one reading: parameters as they are, moved, or computed from.

    Args:
        values: the values in f of the nodes that do not depend on the input.
        like: a tensor of the dtype and device of the reading.
    """

    def __init__(self, trace: Trace, reading: Reading, values: Mapping[fx.Node, Any], like: Tensor) -> None:
        self._trace, self._reading, self._values, self._like = trace, reading, values, like
        self.carriers: dict[fx.Node, Any] = {}  # of the computed nodes that are still read

    def step(self, node: fx.Node) -> None:
        """Find the carrier of a computed node, while the values that it is computed from are there."""
        self.carriers[node] = self._computed(node)

    def weight(self, node: fx.Node) -> Tensor:
        """The value that the reading uses for a node that does not depend on the input.

        Raises:
            PxframeError: the node is computed from a parameter in a way that shows no carrier.
        """
        if node not in self._trace.moved and node not in self._trace.computed:
            return powered(self._values[node], self._reading.power).to(self._like.dtype)
        if node in self._trace.moved:
            return self._moved(node)
        carrier = self.carriers.get(node)
        if carrier is None:
            raise unknown(node, "on a weight before it is used")
        used = powered(self._values[node].detach().abs().to(self._like.dtype), self._reading.power)
        if self._reading.power == 0:
            return (carrier != 0).to(carrier.dtype) * used
        scale = used / carrier.detach()
        return carrier * torch.where(torch.isfinite(scale), scale, 0.0)

    def _moved(self, node: fx.Node) -> Any:
        """A parameter's values in the path network, moved as the parameter was."""
        if node in self._trace.tensors:
            return self._reading.weights[self._trace.tensors[node]]
        return self._follow(node, self._moved(node.args[0]))  # type: ignore[arg-type]

    def _carrier(self, node: Any) -> Any:
        """c of a node, or None if no parameter carries in it. Operations with several results give a list."""
        if not isinstance(node, fx.Node) or node not in self._trace.moved:
            return self.carriers.get(node)
        value = self._moved(node)
        exponent = self._reading.exponents.get(self._trace.moved[node])
        if exponent is None:
            return value
        return pytree.tree_map(lambda part: part * power_of_two(exponent, part), value)

    def _computed(self, node: fx.Node) -> Any:
        kind, args = operation(node), node.args
        if kind in _STATISTICS:
            return None
        if kind in _SUMS:
            return self._sum(node, [self._carrier(argument) for argument in args[:2]])
        if kind in ("addmm", "baddbmm"):
            return self._sum(node, [self._carrier(args[0]), self._product(node, *args[1:3])])
        if kind == "mul" or kind in PRODUCTS:
            return self._product(node, *args[:2])
        if kind in ("cat", "stack"):
            return self._joined(node)
        first = self._carrier(args[0])
        if first is None:
            return None
        if kind in _LINEAR:
            return self._follow(node, first)
        if kind == "view_as_complex":  # |a + ib| squared is the sum of the two squares
            return first.sum(-1)
        if kind == "_weight_norm_interface":  # v, g
            return [first * self._carrier(args[1]), None]
        if kind in BATCH_NORMS:
            gain = self._carrier(args[1])
            shape = (1, -1, *[1] * (first.ndim - 2))
            return [first if gain is None else first * gain.view(shape), None, None, None, None]
        # An elementwise function: each entry carries what its argument did.
        return first if isinstance(first, Tensor) and first.shape == node.meta["val"].shape else None

    def _follow(self, node: fx.Node, value: Any) -> Any:
        """An operation with fixed coefficients of 0 and 1 on one tensor."""
        kind = operation(node)
        if kind in SAME:
            return value
        if kind == "getitem":
            return value[node.args[1]]
        if kind == "as_strided" and value.shape == node.meta["val"].shape:
            return value
        if "view" in kind:  # the value in the path network may have other strides
            return value.reshape(node.args[1])
        args = map_arg(node.args[1:], self._values.__getitem__)  # an index may be a tensor
        return node.target(value, *args, **node.kwargs)  # type: ignore[operator]

    def _sum(self, node: fx.Node, carriers: list[Any]) -> Any:
        terms = [c.expand(node.meta["val"].shape) for c in carriers if c is not None]
        return sum(terms) if terms else None

    def _product(self, node: fx.Node, *sides: Any) -> Any:
        """Every side that reads a parameter and is no statistic carries; of any other its magnitude counts."""
        carriers = [self._carrier(side) for side in sides]
        if all(c is None for c in carriers) or operation(node) == "convolution":
            return None
        one, other = (self._constant(n) if c is None else c for n, c in zip(sides, carriers, strict=True))
        return one * other if operation(node) == "mul" else one @ (other.mT if operation(node) == "linear" else other)

    def _constant(self, node: Any) -> Any:
        value = self._values[node].to(self._like.dtype) if isinstance(node, fx.Node) else self._like.new_tensor(node)
        return powered(value.detach(), self._reading.power)

    def _joined(self, node: fx.Node) -> Any:
        parts: Any = node.args[0]
        carriers = [(part, self._carrier(part)) for part in parts]
        filled = [self._constant(part) if c is None else c for part, c in carriers]
        return node.target(filled, *node.args[1:])  # type: ignore[operator]
