"""Finds the place in its parameter of each entry of a weight, also where the weight was moved before use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.node import map_arg

from pxframe.engine.graph import Trace
from pxframe.engine.rules.shapes import MOVES, SAME
from pxframe.engine.rules.table import operation, unknown


class Places:
    """The places of the weights of a trace. ``node in places`` tells whether a node does not depend on the input.

    Attributes:
        constants: kernels that are not parameters (a blur's, for example), by node name. :meth:`of` adds them.
    """

    def __init__(self, trace: Trace, tensors: Mapping[str, Tensor]) -> None:
        self._trace, self._tensors = trace, tensors
        self.constants: dict[str, Tensor] = {}

    def __contains__(self, node: fx.Node) -> bool:
        return node not in self._trace.active

    def of(self, node: fx.Node) -> tuple[str, Tensor]:
        """The name of the parameter (or constant) that the node's value is taken from, and the places in it.

        Returns:
            the name, and an int32 tensor of the node's shape: the index of each entry in the flattened parameter.

        Raises:
            PxframeError: the node computes new values from a parameter instead of moving its entries.
        """
        name = self._trace.tensors.get(node)
        if name in self._trace.parameters:
            return name, _numbered(self._tensors[name].shape)
        if not self._reads_parameter(node):
            self.constants[node.name] = self.value(node).cpu()
            return node.name, _numbered(self.constants[node.name].shape)
        key, places = self.of(node.args[0])  # type: ignore[arg-type]
        kind = operation(node)
        if kind in SAME or (kind == "as_strided" and places.shape == node.meta["val"].shape):
            return key, places
        if kind not in MOVES:
            raise unknown(node, "on a weight before it is used")
        return key, self.moved(node, places)

    def moved(self, node: fx.Node, tensor: Tensor) -> Any:
        """Move the entries of ``tensor`` as ``node``, an operation of ``MOVES``, moves those of its first argument."""
        rest: Any = map_arg(node.args[1:], lambda n: self.value(n).cpu())
        if "view" in operation(node):  # the tensor's strides may differ from those of the node's argument
            return tensor.reshape(rest[0])
        return node.target(tensor, *rest, **node.kwargs)  # type: ignore[operator]

    def value(self, node: fx.Node) -> Any:
        """The value of the node, on the model's device."""
        if node in self._trace.tensors:
            return self._tensors[self._trace.tensors[node]]
        if node.op == "get_attr":
            return self._trace.constants[str(node.target)]
        args, kwargs = map_arg((node.args, node.kwargs), self.value)
        return node.target(*args, **kwargs)  # type: ignore[operator]

    def _reads_parameter(self, node: fx.Node) -> bool:
        """Whether any parameter is used to compute the node, through whichever argument.

        :meth:`pxframe.engine.graph.Trace.parameter` follows first arguments only and would miss a parameter that is the
        second factor of a product. Such a node must be refused here, not taken for a constant.
        """
        if node in self._trace.tensors:
            return self._trace.tensors[node] in self._trace.parameters
        return any(self._reads_parameter(source) for source in node.all_input_nodes)


def _numbered(shape: torch.Size) -> Tensor:
    return torch.arange(shape.numel(), dtype=torch.int32).view(shape)
