"""The model's computation as an aten graph, for one input shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.func import functional_call, functionalize
from torch.utils import _pytree as pytree

from pxframe.base.errors import PxframeError
from pxframe.engine.factors.computed import find_computed
from pxframe.engine.factors.roles import find_roles, needed
from pxframe.engine.factors.values import masks
from pxframe.engine.graph import Trace
from pxframe.engine.layers import recording_layers
from pxframe.engine.rules.table import WAY_OUT, operation
from pxframe.engine.tracing.record import record
from pxframe.engine.tracing.reuse import find_reuse
from pxframe.engine.tracing.unfused import math_attention, plain_layers
from pxframe.running.inputs import arguments, described, filled, leaves, starting
from pxframe.running.undisturbed import evaluating, undisturbed

#: Parts of the messages by which torch says that Python code asked a traced tensor for its value.
_ASKED_FOR_VALUES = ("trying to get a value out of", "trying to get value out of", "data-dependent")


def trace_model(model: nn.Module, inputs: Any) -> Trace:
    """Trace ``model`` in eval mode on ``inputs`` (one forward pass); the model is left as it was.

    Args:
        inputs: what the model is given (see :mod:`pxframe.running.inputs`).

    Raises:
        PxframeError: the model's Python code cannot be traced, or its output does not use its input.
    """

    def forward(*flat: Tensor) -> list[Tensor]:
        own, data = flat[: len(tensors)], flat[len(tensors) :]
        # The model may work in place on its input.
        args, kwargs = arguments(filled(inputs, [x.clone() for x in data]))
        output = functional_call(model, dict(zip(tensors, own, strict=True)), args, kwargs)
        return [tensor for tensor in leaves(output) if tensor.is_floating_point()]

    with undisturbed(model), evaluating(model), math_attention(), torch.no_grad():
        # What the model writes into is written back to these when its trace is made: parameters are copies, and so are
        # buffers inside ``undisturbed``.
        parameters = {n: p.detach().clone() for n, p in model.named_parameters()}
        tensors = {**parameters, **dict(model.named_buffers())}
        with recording_layers(model) as running:
            try:
                # A tensor that is given twice is two inputs, which need not be equal in the next batch.
                given = [*tensors.values(), *(x.detach() for x in leaves(inputs))]
                with plain_layers():
                    graph, constants = record(functionalize(forward, remove="mutations"), given)
                if any(map(_writes, graph.nodes)):  # inside some operations torch looks only the second time
                    again = fx.Interpreter(fx.GraphModule(constants, graph)).run
                    graph, constants = record(functionalize(again, remove="mutations"), given)
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # of any module's forward, or of torch's tracer
                raise _explained(error, inputs, running) from error
    return _read(graph, constants, list(tensors), frozenset(parameters), starting(inputs), leaves(inputs)[0].device)


def _writes(node: fx.Node) -> bool:
    """Whether an operation other than a write to a buffer works in place."""
    schema = getattr(node.target, "_schema", None)
    return schema is not None and schema.is_mutable and node.target is not torch.ops.aten.copy_.default


def _explained(error: Exception, inputs: Any, running: Sequence[str]) -> PxframeError:
    where = f" in {running[-1]}" if running else ""
    text = " ".join(str(error).split())
    if any(part in text for part in _ASKED_FOR_VALUES):
        return PxframeError(
            f"the forward pass asks for the values of a tensor{where} (an 'if' or a loop over data, .item(), "
            f".tolist()), so its graph is not the same for every input; {WAY_OUT}"
        )
    return PxframeError(
        f"the model cannot be traced on {described(inputs)}: "
        f"{type(error).__name__}{where}: {text[:200]}; check the batches' shape and dtype, "
        f"or use a scorer that reads no paths"
    )


def _read(
    graph: fx.Graph,
    constants: dict[str, Tensor],
    names: list[str],
    parameters: frozenset[str],
    starting: list[bool],
    device: torch.device,
) -> Trace:
    for node in graph.nodes:
        if node.target is torch.ops.aten.as_strided_.default:  # torch's own, of 1x1 kernels in channels_last
            node.target = torch.ops.aten.as_strided.default
        if node.target is torch.ops.aten.copy_.default and node.args[0].op == "placeholder":
            # What forward writes into a buffer: nothing to do with its output, and never to be done again.
            node.replace_all_uses_with(node.args[1])
            graph.erase_node(node)
    graph.eliminate_dead_code()
    nodes = list(graph.nodes)
    placeholders = [n for n in nodes if n.op == "placeholder"]
    inputs = tuple(placeholders[len(names) :])
    given = tuple(node for node, starts in zip(inputs, starting, strict=True) if starts)
    body = [n for n in nodes if n.op in ("call_function", "get_attr")]
    outputs: list[fx.Node] = [n for n in pytree.tree_leaves(nodes[-1].args) if isinstance(n, fx.Node)]
    active = set(inputs)
    for node in body:
        if any(source in active for source in node.all_input_nodes):
            active.add(node)
    data = _of_data(body, inputs, given, active)
    outputs = [n for n in outputs if n in active]
    if not outputs:
        raise PxframeError(
            "no floating-point output of the model depends on its input; let forward return one that does, "
            "or use a scorer that reads no paths"
        )
    roles = find_roles(body, active, outputs, data)
    outputs = [n for n in outputs if n not in roles.factors]
    paths, factors_used = needed(body, active, roles, outputs)
    last_use = _last_use(body, active, keep=set(outputs))
    tensors = dict(zip(placeholders[: len(names)], names, strict=True))
    own = {n: name for n, name in tensors.items() if name in parameters}
    moved, computed = find_computed(body, active, paths, own)
    return Trace(
        nodes=body,
        tensors=tensors,
        parameters=parameters,
        moved=moved,
        computed=computed,
        constants={str(n.target): constants[str(n.target)].to(device) for n in body if n.op == "get_attr"},
        inputs=inputs,
        given=given,
        data=frozenset(data),
        outputs=outputs,
        active=frozenset(active),
        paths=paths,
        factors=factors_used,
        carried=roles.carried,
        last_use=last_use,
        reuse=find_reuse(body, inputs, active, last_use),
    )


def _of_data(
    nodes: list[fx.Node], inputs: Sequence[fx.Node], given: Sequence[fx.Node], active: set[fx.Node]
) -> set[fx.Node]:
    """The inputs that are data, and what is computed from them alone; paths start at the rows of an embedding."""
    embeddings = {node for node in nodes if operation(node) == "embedding" and node.args[1] in active}
    words = embeddings and len(inputs) > 1 and not any(node.meta["val"].is_floating_point() for node in inputs)
    data = set(inputs) if words else set(inputs) - set(given)
    for node in nodes:
        if node in active and node not in embeddings and active.intersection(node.all_input_nodes) <= data:
            data.add(node)
    return data


def _last_use(nodes: list[fx.Node], active: set[fx.Node], keep: set[fx.Node]) -> dict[fx.Node, list[fx.Node]]:
    last: dict[fx.Node, list[fx.Node]] = {}
    seen = set(keep)
    for node in reversed(nodes):
        freed = [n for n in (*node.all_input_nodes, *masks(node, active), node) if n not in seen]
        last[node] = list(dict.fromkeys(freed))
        seen.update(freed)
    return last
