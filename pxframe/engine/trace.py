"""The model's computation as an aten graph, for one input shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.func import functional_call, functionalize
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

from pxframe.base.errors import PxframeError
from pxframe.base.undisturbed import evaluating
from pxframe.engine.attention import math_attention
from pxframe.engine.factors import find_factors, masks, needed
from pxframe.engine.graph import Trace
from pxframe.engine.reuse import find_reuse


def trace_model(model: nn.Module, inputs: Tensor) -> Trace:
    """Trace ``model`` in eval mode on ``inputs`` (one forward pass); the model is left as it was.

    Raises:
        PxframeError: the model's Python code cannot be traced, or its output does not use its input.
    """
    parameters = {n: p.detach() for n, p in model.named_parameters()}
    tensors = {**parameters, **{n: b.detach() for n, b in model.named_buffers()}}

    def forward(flat: Sequence[Tensor], x: Tensor) -> list[Tensor]:
        output = functional_call(
            model, dict(zip(tensors, flat, strict=True)), (x.clone(),)
        )  # it may work in place on it
        leaves = pytree.tree_leaves(output)
        return [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.is_floating_point()]

    with evaluating(model), math_attention(), torch.no_grad():
        try:
            module = make_fx(functionalize(forward, remove="mutations"))(list(tensors.values()), inputs)
        except Exception as error:
            cause = f"{type(error).__name__}: {error}".splitlines()[0]
            shape = tuple(inputs.shape)
            raise PxframeError(f"the model cannot be traced on an input of shape {shape}: {cause}") from error
    return _read(module, list(tensors), frozenset(parameters))


def _read(module: fx.GraphModule, names: list[str], parameters: frozenset[str]) -> Trace:
    for node in module.graph.nodes:
        if node.target is torch.ops.aten.as_strided_.default:  # torch's own, of 1x1 kernels in channels_last
            node.target = torch.ops.aten.as_strided.default
    module.graph.eliminate_dead_code()
    nodes = list(module.graph.nodes)
    placeholders = [n for n in nodes if n.op == "placeholder"]
    inputs = placeholders[-1]
    body = [n for n in nodes if n.op in ("call_function", "get_attr")]
    outputs: list[fx.Node] = [n for n in pytree.tree_leaves(nodes[-1].args) if isinstance(n, fx.Node)]
    active = {inputs}
    for node in body:
        if any(source in active for source in node.all_input_nodes):
            active.add(node)
    outputs = [n for n in outputs if n in active]
    if not outputs:
        raise PxframeError("no floating-point output of the model depends on its input")
    factors = find_factors(body, active)
    outputs = [n for n in outputs if n not in factors]
    paths, factors_used = needed(body, active, factors, outputs)
    last_use = _last_use(body, active, keep=set(outputs))
    return Trace(
        nodes=body,
        tensors=dict(zip(placeholders[:-1], names, strict=True)),
        parameters=parameters,
        constants={n.target: _attribute(module, n.target) for n in body if n.op == "get_attr"},
        inputs=inputs,
        outputs=outputs,
        active=frozenset(active),
        paths=paths,
        factors=factors_used,
        last_use=last_use,
        reuse=find_reuse(body, inputs, active, last_use),
    )


def _last_use(nodes: list[fx.Node], active: set[fx.Node], keep: set[fx.Node]) -> dict[fx.Node, list[fx.Node]]:
    last: dict[fx.Node, list[fx.Node]] = {}
    seen = set(keep)
    for node in reversed(nodes):
        freed = [n for n in (*node.all_input_nodes, *masks(node, active), node) if n not in seen]
        last[node] = list(dict.fromkeys(freed))
        seen.update(freed)
    return last


def _attribute(module: Any, path: str) -> Tensor:
    for part in path.split("."):
        module = getattr(module, part)
    return module
