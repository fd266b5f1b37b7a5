"""Records the operations of a function as a graph.

``torch.fx.experimental.proxy_tensor.make_fx`` gives the same graph, but it imports torch's compiler. That takes longer
than to import torch, so a first prune would spend most of its time on it.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx import traceback as fx_traceback
from torch.fx.node import map_aggregate
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary


def record(function: Callable[..., Any], tensors: Sequence[Tensor]) -> tuple[fx.Graph, dict[str, Tensor]]:
    """The aten operations of ``function(*tensors)``, from one run of it.

    What does not depend on ``tensors`` is computed once, here, and is a constant of the graph; random numbers are drawn
    by the graph. ``meta["val"]`` of a node has the shape, strides and dtype of its value.

    Returns:
        the graph, with a placeholder for each of ``tensors``, and its constants by target of their ``get_attr`` nodes.

    Raises:
        RuntimeError: the function asks for the values of a tensor; and whatever the function raises.
    """
    recorder = _Recorder()
    for tensor in tensors:
        recorder.follow(tensor, recorder.graph.placeholder(f"tensor_{len(recorder.graph.nodes)}"))
    with recorder:
        result = function(*tensors)
    recorder.graph.output(pytree.tree_map_only(Tensor, recorder.node_of, result))
    return recorder.graph, recorder.constants


class PlainMode(TorchDispatchMode):
    """A dispatch mode for which torch does not import its compiler."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # True wraps __torch_dispatch__ in a function of the compiler's


class _Recorder(PlainMode):
    """Runs every operation, and adds it to a graph if any of its arguments depends on what the graph was given."""

    def __init__(self) -> None:
        super().__init__()
        self.graph = fx.Graph()
        self.constants: dict[str, Tensor] = {}
        self._nodes: Any = WeakTensorKeyDictionary()  # tensors that nobody needs any more are freed

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given: list[Any] = []
        map_aggregate((args, kwargs), given.append)
        known = any(a in self._nodes for a in given if isinstance(a, Tensor))
        if not known and torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **kwargs)
        if torch.Tag.data_dependent_output in func.tags:
            raise RuntimeError(f"trying to get a value out of a traced tensor with {func}: data-dependent control flow")
        read, named = map_aggregate((args, kwargs), lambda a: self.node_of(a) if isinstance(a, Tensor) else a)
        node = self.graph.create_node("call_function", func, read, named, name=func.overloadpacket.__name__)
        out = func(*args, **kwargs)
        self.follow(out, node)
        return out

    def follow(self, value: Any, node: fx.Node) -> None:
        """Let ``node`` stand for ``value``, a tensor or a sequence of values."""
        node.meta = {**fx_traceback.get_current_meta(), "val": _described(value)}
        if isinstance(value, Tensor):
            self._nodes[value] = node
        elif isinstance(value, (list, tuple)):
            for index, part in enumerate(value):
                if isinstance(part, Tensor):
                    self.follow(part, self.graph.call_function(operator.getitem, (node, index)))

    def node_of(self, tensor: Tensor) -> fx.Node:
        """The node of a tensor; one that does not depend on the graph's own becomes a constant."""
        if tensor not in self._nodes:
            name = f"constant_{len(self.constants)}"
            self.constants[name] = tensor.clone()  # the model may write into its own
            self.follow(tensor, self.graph.create_node("get_attr", name))
        return self._nodes[tensor]


def _described(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return pytree.tree_map_only(Tensor, _described, value)
    return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")
