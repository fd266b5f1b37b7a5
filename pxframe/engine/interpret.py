"""Runs a trace node by node: f, and beside it any number of path networks over the same graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.node import map_arg

from pxframe.base.errors import PxframeError
from pxframe.engine.factors.computed import Computed
from pxframe.engine.factors.values import multiplier, open_factor, open_ones
from pxframe.engine.forward import Values, call
from pxframe.engine.graph import Trace
from pxframe.engine.reading import Reading
from pxframe.engine.rules import norms
from pxframe.engine.rules.table import Step, operation, rule_of
from pxframe.engine.scaled import Scaled
from pxframe.running.inputs import leaves, starting_tensors


@dataclass
class Run:
    """What a run gives.

    Attributes:
        outputs: f's output tensors; empty where f was not needed.
        paths: per reading, its value at each output.
        variances: name of a BN's running variance -> f's batch variance there (``batch_norm="batch"``).
    """

    outputs: list[Tensor]
    paths: list[list[Scaled]]
    variances: dict[str, Tensor] = field(default_factory=dict)


def interpret(
    trace: Trace,
    tensors: Mapping[str, Tensor],
    inputs: Any,
    readings: Sequence[tuple[Reading, Sequence[Scaled]]],
    *,
    batch_norm: str = "running",
) -> Run:
    """Run f on ``inputs``, and each reading on its own input values. Values are freed after their last use.

    Args:
        trace: the graph, for inputs of this shape.
        tensors: the model's parameters and buffers by name, as f is to use them (weights masked).
        inputs: what f is given. Nodes that depend on it are evaluated for f only if a reading replays f's gates or the
            statistics of BN are measured.
        readings: pairs of a reading and the values that paths start with, one for each of ``trace.given``.
        batch_norm: ``"running"`` as the model does at eval, or ``"batch"``: f normalises by the statistics of this
            batch, as it will in training, and records them.

    Raises:
        PxframeError: an operation that no rule covers, or outputs without a path to them.
    """
    if not trace.outputs:
        raise PxframeError(
            "every output of the model is made by a softmax or another factor formed from the data, and "
            "carries no path; path-based scorers need the model without it"
        )
    with_f = batch_norm == "batch" or any(reading.replay for reading, _ in readings)
    values: dict[fx.Node, Any] = Values(trace, tensors)
    values.update(zip(trace.inputs, leaves(inputs), strict=True))
    # The backward pass needs the inputs of the operations, so nothing may be written over.
    reuse = {} if torch.is_grad_enabled() else trace.reuse
    networks = [_Network(trace, reading, start, values, reuse) for reading, start in readings]
    run = Run([], [])
    for node in trace.nodes:
        if node.op == "get_attr":
            values[node] = trace.constants[str(node.target)]
            continue
        if node not in trace.active:
            values[node] = call(node, values)
            if node in trace.computed:
                for network in networks:
                    network.weights.step(node)
        else:
            if with_f:
                with torch.no_grad():
                    values[node] = _call_f(node, values, batch_norm, trace.tensors, run.variances, reuse)
            for network in networks:
                network.step(node)
        if done := trace.last_use[node]:
            for other in done:
                values.pop(other, None)
            for network in networks:
                network.forget(done)
    if with_f:
        run.outputs = [values[node] for node in trace.outputs]
    run.paths = [[network.paths[node] for node in trace.outputs] for network in networks]
    return run


class _Network:
    """One reading on its way through the graph."""

    def __init__(
        self,
        trace: Trace,
        reading: Reading,
        start: Sequence[Scaled],
        values: dict[fx.Node, Any],
        reuse: Mapping[fx.Node, int],
    ) -> None:
        given = dict(zip(trace.given, start, strict=True))
        self.paths: dict[fx.Node, Any] = {node: given[node] for node in trace.starts}
        self._trace, self._reading, self._values, self._reuse = trace, reading, values, reuse
        self._like = start[0].mantissa.new_empty(0)  # of the dtype and device of this network
        # node -> the value of a factor in an open reading
        self._open: dict[fx.Node, Any] = {
            n: open_ones(n.meta["val"], self._like) for n in trace.data & set(trace.inputs)
        }
        self.weights = Computed(trace, reading, values, self._like)

    def step(self, node: fx.Node) -> None:
        trace = self._trace
        if trace.shared and node in trace.shared:
            self._share(node)
        elif node in trace.paths:
            source = self._reading.handed.get(node)
            self.paths[node] = self._path(node) if source is None else self.paths[source]
        if node in trace.factors and not self._reading.replay:
            self._open[node] = open_factor(node, trace, self._without_data, self._like)

    def _path(self, node: fx.Node) -> Any:
        step = Step(node, self._reading, self.paths, self._values, self._fixed, self._trace, self._reuse.get(node))
        value, after = rule_of(node)(step), self._reading.after
        if after is None:
            return value
        if isinstance(value, (list, tuple)):
            return [after(part) if isinstance(part, Scaled) else part for part in value]
        return after(value)

    def _share(self, node: fx.Node) -> None:
        """The path value of a node that shares, if a rule can read it and what it needs has one."""
        try:
            value = self._path(node)
        except torch.OutOfMemoryError:
            raise
        except Exception:  # a model that is scored without shares must be scored with them, too
            return
        if value is not None:  # the indices beside a maximum
            self.paths[node] = value

    def forget(self, nodes: Sequence[fx.Node]) -> None:
        for values in (self.paths, self._open, self.weights.carriers):
            if values:
                for node in nodes:
                    values.pop(node, None)

    def _without_data(self, node: fx.Node) -> Any:
        return self._open[node] if node in self._trace.factors else self._values[node]

    def _fixed(self, node: fx.Node) -> Tensor:
        """The value that this reading uses for a weight, a coefficient, a factor, or a recorded side of a product."""
        if node in self._trace.active:
            value = self._values if self._reading.replay else self._open
            return multiplier(node, self._trace, self._reading, value.__getitem__, self._like)
        return self.weights.weight(node)


def _call_f(
    node: fx.Node,
    values: Mapping[fx.Node, Any],
    batch_norm: str,
    names: Mapping[fx.Node, str],
    variances: dict[str, Tensor],
    reuse: Mapping[fx.Node, int],
) -> Any:
    if batch_norm == "batch" and operation(node) in norms.BATCH_NORMS and isinstance(node.args[4], fx.Node):
        inputs, weight, bias = (values[a] if isinstance(a, fx.Node) else None for a in node.args[:3])
        assert inputs is not None
        out, variance = norms.batch_statistics(node, inputs, weight, bias, values[node.args[4]])
        variances[names[node.args[4]]] = variance
        return [out, None, None, None, None]
    if node in reuse:
        args, kwargs = map_arg((node.args, node.kwargs), values.__getitem__)
        return _in_place(operation(node), reuse[node], args, kwargs)
    return call(node, values)


def _in_place(name: str, over: int, args: Any, kwargs: Any) -> Tensor:
    if name == "relu":
        return args[0].relu_()
    if over == 0:
        return args[0].add_(args[1], **kwargs)
    return args[1].mul_(kwargs.get("alpha", 1)).add_(args[0]) if kwargs else args[1].add_(args[0])


def ones_input(inputs: Any, dtype: torch.dtype) -> list[Scaled]:
    """Ones in place of each input that paths start at: every path starts with the value 1."""
    return [Scaled.of(torch.ones_like(x, dtype=dtype)) for x in starting_tensors(inputs)]


def squared_input(inputs: Any, dtype: torch.dtype) -> list[Scaled]:
    """The square of each input that paths start at: the input of g."""
    return [Scaled.of(x.to(dtype).square()) for x in starting_tensors(inputs)]
