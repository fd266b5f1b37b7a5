"""Batch norms that may be folded into the weight of the convolution in front of them.

Folding changes no path's value, since the norm's scale is a coefficient of the weight, and it saves two passes over the
activations in each round. S = dR/du * u is the same for the folded weight u as for the weight alone.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any, NamedTuple

from torch import Tensor, fx

from pxframe.engine.graph import Trace
from pxframe.engine.reading import powered
from pxframe.engine.rules.norms import BATCH_NORMS, epsilon, scale_of
from pxframe.engine.rules.table import is_transposed, operation


class Norm(NamedTuple):
    """A batch norm: names of its parameter and its buffer, and its epsilon."""

    gamma: str | None
    variance: str
    epsilon: float

    def folded(self, weight: Tensor, tensors: Mapping[str, Tensor], power: int) -> Tensor:
        """``weight`` times (|gamma| / sigma) ** ``power``, which is one number for each of its rows; float64."""
        gamma = None if self.gamma is None else powered(tensors[self.gamma].double(), power)
        scale = scale_of(gamma, tensors[self.variance].double(), self.epsilon, power)
        return weight.double() * scale.view(-1, *[1] * (weight.ndim - 1))


def find_folds(trace: Trace, names: Container[str]) -> dict[fx.Node, tuple[str, Norm]]:
    """The nodes of batch norms that may be folded, each with the name of the weight in front of it.

    Args:
        names: weights that may be changed. A norm's own parameter must not be one of them.
    """
    found: dict[fx.Node, tuple[str, Norm]] = {}
    for node in trace.nodes:
        if operation(node) in BATCH_NORMS:
            weight, gamma = _weight_in_front(node.args[0], trace), _name(node.args[1], trace)
            variance = _name(node.args[4], trace)
            computed = gamma is None and node.args[1] is not None
            if weight is not None and weight in names and variance is not None and not computed and gamma not in names:
                found[node] = weight, Norm(gamma, variance, epsilon(node))
    return found


def hand_on(trace: Trace, folded: Container[fx.Node]) -> dict[fx.Node, fx.Node]:
    """The nodes whose path value, with all gates open, is that of another node, and that node.

    They are rectifiers and folded batch norms: in many networks more than half of all nodes.

    Args:
        folded: batch norms whose scale is a part of the weight in front of them.
    """
    found: dict[fx.Node, fx.Node] = {}
    for node in trace.nodes:
        if node not in trace.paths or (trace.shared and node in trace.shared):
            continue
        first_of_norm = operation(node) == "getitem" and node.args[0] in found and node.args[1] == 0
        if operation(node) == "relu" or node in folded or first_of_norm:
            found[node] = node.args[0]  # type: ignore[assignment]
    return found


def _weight_in_front(node: Any, trace: Trace) -> str | None:
    """Name of the weight of a convolution that nothing but the norm reads, if nothing else uses that weight."""
    if operation(node) != "convolution" or is_transposed(node) or len(node.users) > 1 or node not in trace.paths:
        return None
    weight = node.args[1]
    return _name(weight, trace) if len(weight.users) == 1 else None


def _name(node: Any, trace: Trace) -> str | None:
    """Name of a parameter or buffer that is used as it is."""
    return trace.tensors.get(node) if isinstance(node, fx.Node) else None
