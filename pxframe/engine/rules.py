"""The table of operations a path network knows, and what a rule is given."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx

from pxframe.engine.reading import Reading
from pxframe.engine.scaled import Scaled
from pxframe.errors import PxframeError

Rule = Callable[["Step"], Any]
RULES: dict[str, Rule] = {}


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
    name = operation(node)
    if name not in RULES:
        raise unknown(node)
    return RULES[name]


def operation(node: fx.Node) -> str:
    """Name of a node's aten operation, without namespace and overload."""
    if node.target is operator.getitem:
        return "getitem"
    packet = getattr(node.target, "overloadpacket", node.target)
    return getattr(packet, "__name__", str(packet))


def unknown(node: fx.Node, why: str = "") -> PxframeError:
    """The error for an operation the path engine cannot read."""
    detail = f" {why}" if why else ""
    return PxframeError(
        f"the path engine does not know the operation {node.target}{detail} (node {node.name!r}); "
        f"path-based scorers cannot read this model"
    )


@dataclass
class Step:
    """One node, as one reading sees it.

    Attributes:
        paths: values of this reading: ``Scaled`` for every node that depends on the input.
        values: values of f: tensors of nodes that do not depend on the input, and of all nodes where f runs.
        fixed: gives a coefficient or weight (a node that does not depend on the input) as this reading takes it.
        names: parameter or buffer name behind each placeholder node.
    """

    node: fx.Node
    reading: Reading
    paths: dict[fx.Node, Any]
    values: dict[fx.Node, Any]
    fixed: Callable[[fx.Node], Tensor]
    names: dict[fx.Node, str]

    @property
    def args(self) -> tuple[Any, ...]:
        return self.node.args

    def option(self, index: int, name: str, default: Any = None) -> Any:
        """A plain argument by position or keyword."""
        if len(self.args) > index:
            return self.args[index]
        return self.node.kwargs.get(name, default)

    def path(self, index: int = 0) -> Scaled:
        """The path value of an argument that depends on the input."""
        return self.paths[self.args[index]]

    def is_path(self, argument: Any) -> bool:
        return isinstance(argument, fx.Node) and argument in self.paths

    def raw(self, argument: Any) -> Any:
        """The value in f of an argument: a node's tensor, or the plain value itself."""
        return self.values[argument] if isinstance(argument, fx.Node) else argument

    def linear(self, value: Scaled, function: Callable[[Tensor], Tensor], bits: float) -> Scaled:
        """Apply a linear map with non-negative coefficients.

        Where paths are counted, coefficients are 0 or 1 and ``bits`` bounds the growth; otherwise the result is
        measured.
        """
        if self.reading.power == 0:
            return value.map(function, bits)
        return Scaled(function(value.mantissa), value.exponent).measured()

    def result_shape(self) -> tuple[int, ...]:
        return tuple(self.node.meta["val"].shape)
