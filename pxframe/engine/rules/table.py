"""The table of operations that a path network knows, and the arguments of a rule."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

from torch import Tensor, fx

from pxframe.base.errors import PxframeError
from pxframe.engine.graph import Trace
from pxframe.engine.layers import layer_of
from pxframe.engine.reading import Reading
from pxframe.engine.scaled import Scaled, writable

Rule = Callable[["Step"], Any]
RULES: dict[str, Rule] = {}
#: Operations that multiply by a weight: the positions of the weight and of the other factor among their arguments.
#: Either factor of a matrix product may be the weight.
PRODUCTS: dict[str, tuple[int, int]] = {
    "convolution": (1, 0),
    "mm": (1, 0),
    "bmm": (1, 0),
    "addmm": (2, 1),
    "baddbmm": (2, 1),
    "linear": (1, 0),
    "matmul": (1, 0),
    "deform_conv2d": (1, 0),
}
#: Those among them whose weight is ``[out, in / groups, *kernel]``, or the transposed.
CONVOLUTIONS = frozenset(("convolution", "deform_conv2d"))

#: Elementwise operations phi with phi(0) = 0 that let a part of their input through.
ACTIVATIONS = frozenset(
    (
        *("relu", "leaky_relu", "rrelu_with_noise", "_prelu_kernel", "gelu", "silu", "mish", "hardswish", "hardtanh"),
        *("elu", "tanh", "softshrink", "hardshrink", "threshold", "clamp", "clamp_min", "clamp_max"),
    )
)
#: Elementwise operations with phi(0) > 0: factors where they only multiply, else activations with a bias phi(0).
SIGMOIDS = frozenset(("sigmoid", "hardsigmoid", "softplus"))
SOFTMAX = frozenset(("softmax", "_softmax", "_safe_softmax"))
#: What a user can do about a model that the engine cannot read.
WAY_OUT = (
    "only scorers that read no paths can prune the whole model; any other can prune a sub-module that does without: "
    "pxframe.prune(model.backbone, ...)"
)


def rule(*operations: str) -> Callable[[Rule], Rule]:
    """Register a rule for aten operations, by name without overload (``"add"`` covers ``aten.add.Tensor``)."""

    def register(function: Rule) -> Rule:
        for operation in operations:
            RULES[operation] = function
        return function

    return register


def rule_of(node: fx.Node) -> Rule:
    """The rule for ``node``.

    Raises:
        PxframeError: the operation is not in the table; names it.
    """
    found = RULES.get(_name(node.target))
    if found is None:
        raise unknown(node)
    return found


def operation(node: fx.Node) -> str:
    """Name of a node's aten operation, without namespace and overload."""
    return _name(node.target)


@cache  # every round asks several times about every node
def _name(target: Any) -> str:
    if target is operator.getitem:
        return "getitem"
    packet = getattr(target, "overloadpacket", target)
    return getattr(packet, "__name__", str(packet))


def is_transposed(node: fx.Node) -> bool:
    """Whether a node is a transposed convolution, with a weight ``[in, out / groups, *kernel]``."""
    return operation(node) == "convolution" and bool(node.args[6])


def unknown(node: fx.Node, why: str = "") -> PxframeError:
    """The error for an operation the path engine cannot read."""
    detail = f" {why}" if why else ""
    layer = layer_of(node)
    where = f"node {node.name!r} of {layer}" if layer else f"node {node.name!r}"
    return PxframeError(f"the path engine does not know the operation {node.target}{detail} ({where}); {WAY_OUT}")


@dataclass(slots=True)
class Step:
    """One node, as one reading sees it.

    Attributes:
        paths: the path values of this reading: a ``Scaled`` for every node that a path leads through.
        values: the tensors of f: of nodes that do not depend on the input, and of all nodes if f runs.
        fixed: returns the value that this reading uses for a weight, a coefficient (a node that does not depend on the
            input), a factor, or a recorded side of a product.
        trace: the graph. Rules read the names behind placeholder nodes and the factors (see ``factors.py``).
        reuse: position of the argument whose path value may be written over; None if there is none.
    """

    node: fx.Node
    reading: Reading
    paths: dict[fx.Node, Any]
    values: dict[fx.Node, Any]
    fixed: Callable[[fx.Node], Tensor]
    trace: Trace
    reuse: int | None

    @property
    def args(self) -> tuple[Any, ...]:
        return self.node.args

    def option(self, index: int, name: str, default: Any = None) -> Any:
        """A plain argument by position or keyword."""
        if len(self.args) > index:
            return self.args[index]
        return self.node.kwargs.get(name, default)

    def path(self, index: int = 0) -> Scaled:
        """The path value of an argument."""
        return self.paths[self.args[index]]

    def is_path(self, argument: Any) -> bool:
        """Whether an argument has a path value that this operation takes."""
        if not isinstance(argument, fx.Node) or argument not in self.paths:
            return False
        return not self.is_shared or argument not in self.trace.weightless or not self._beside_weights

    @property
    def _beside_weights(self) -> bool:
        return any(n in self.paths and n not in self.trace.weightless for n in self.node.all_input_nodes)

    def shares(self, argument: Any) -> bool:
        """Whether an argument that multiplies paths has a path value of its own, with weights on its paths."""
        return self.is_path(argument) and argument not in self.trace.weightless

    def carries(self, index: int) -> bool:
        """Whether paths run through an argument of this product; where they do not, it multiplies them."""
        argument = self.args[index]
        if not self.is_path(argument) or self.is_shared:
            return self.is_path(argument)
        return argument not in self.trace.factors and index in self.trace.carried.get(self.node, (index,))

    @property
    def is_shared(self) -> bool:
        """Whether this node has a path value only to share a factor's score (see ``sharing.py``)."""
        return self.trace.shared is not None and self.node in self.trace.shared

    def is_recorded(self, node: fx.Node) -> bool:
        """Whether ``node``, which multiplies paths here, carries paths itself elsewhere."""
        return node in self.trace.active and node not in self.trace.factors

    def is_factor(self, argument: Any) -> bool:
        if not isinstance(argument, fx.Node) or (self.is_shared and argument in self.paths):
            return False
        return argument in self.trace.factors

    def refuse_factors(self, arguments: Iterable[Any]) -> None:
        """Refuse a factor beside an activation: no path leads to a factor, so its part would be lost.

        What is computed from integer data alone is a bias beside an activation, and no loss.
        """
        if any(self.is_factor(argument) and argument not in self.trace.data for argument in arguments):
            raise unknown(self.node, "of an activation and a factor, which carries no path")

    def raw(self, argument: Any) -> Any:
        """The value in f of an argument: a node's tensor, or the plain value itself.

        Raises:
            PxframeError: it depends on the data, and this reading knows none.
        """
        if not isinstance(argument, fx.Node):
            return argument
        try:
            return self.values[argument]
        except KeyError:
            why = f"with {argument.name!r}, which is computed from the data, where all gates are open"
            raise unknown(self.node, why) from None

    def linear(self, value: Scaled, function: Callable[[Tensor], Tensor], bits: float) -> Scaled:
        """Apply a linear map with non-negative coefficients.

        If paths are counted, coefficients are 0 or 1 and ``bits`` bounds the growth (infinity for a factor, which has
        no bound); otherwise the result is measured.
        """
        if self.reading.power == 0:
            return value.map(function, bits)
        return Scaled(function(value.mantissa), value.exponent).measured()

    def weighted(
        self, value: Scaled, node: fx.Node, weight: Tensor, function: Callable[[Tensor, Tensor], Tensor], terms: int
    ) -> Scaled:
        """Like :meth:`linear`, for ``function(mantissa, weight)``, linear in both.

        Args:
            node: the node of ``weight``.
            terms: the largest number of products that the function sums in one entry.
        """
        bits = math.inf if node in self.trace.active else math.log2(max(1, terms))
        exponent = self.reading.exponents.get(self.trace.moved.get(node, ""))
        if exponent is not None:
            out = value.times(weight, function, bits)
            return Scaled(out.mantissa, out.exponent + exponent, out.growth)
        if self.reading.power == 0 and bits < math.inf:
            return value.times(weight, function, bits)
        return Scaled(function(value.mantissa, weight), value.exponent).measured()

    def may_write(self, value: Scaled, shape: tuple[int, ...]) -> bool:
        """Whether a result of ``shape`` fits into the memory of ``value``, which no later node reads."""
        return value.mantissa.shape == shape and writable(value.mantissa)

    def result_shape(self) -> tuple[int, ...]:
        return tuple(self.node.meta["val"].shape)
