"""f alone, node by node."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, fx
from torch.fx.node import map_arg

from pxframe.engine.graph import Trace
from pxframe.running.inputs import leaves


class Values(dict[fx.Node, Any]):
    """The values of nodes. A parameter or buffer is taken from ``tensors`` when it is first read."""

    def __init__(self, trace: Trace, tensors: Mapping[str, Tensor]) -> None:
        self._trace, self._tensors = trace, tensors

    def __missing__(self, node: fx.Node) -> Any:
        names = self._trace.tensors
        self[node] = self._tensors[names[node]] if node in names else call(node, self)
        return self[node]


class Forward:
    """A forward pass that stops where its user wants; values are freed after their last use.

    Args:
        trace: the graph, for inputs of this shape.
        tensors: parameters and buffers by name; each is read when an operation on the data first needs it.
        inputs: what the model is given.
    """

    def __init__(self, trace: Trace, tensors: Mapping[str, Tensor], inputs: Any) -> None:
        self._trace = trace
        self.values = Values(trace, tensors)
        self.values.update(zip(trace.inputs, leaves(inputs), strict=True))

    def step(self, node: fx.Node) -> None:
        if node in self._trace.moved:  # made when it is read, from the parameter's value at that time
            return
        if node.op == "get_attr":
            self.values[node] = self._trace.constants[str(node.target)]
        else:
            self.values[node] = call(node, self.values)
        for done in self._trace.last_use[node]:
            self.values.pop(done, None)

    def refresh(self, name: str) -> None:
        """Read a parameter anew from now on."""
        for node, of in self._trace.moved.items():
            if of == name:
                self.values.pop(node, None)


def call(node: fx.Node, values: Mapping[fx.Node, Any]) -> Any:
    """The value of a node from those it reads."""
    args, kwargs = map_arg((node.args, node.kwargs), values.__getitem__)
    return node.target(*args, **kwargs)  # type: ignore[operator]
