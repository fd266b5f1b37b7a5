"""The parameters that a mask entry on an output channel multiplies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, fx

from pxframe.base.errors import PxframeError
from pxframe.engine.graph import Trace
from pxframe.engine.rules.norms import BATCH_NORMS
from pxframe.engine.rules.table import CONVOLUTIONS, PRODUCTS, operation
from pxframe.scoring.flops import multiplications

if TYPE_CHECKING:
    from pxframe.network.net import Net

#: Where the bias stands among the arguments of a product that adds one.
_BIASES = {"convolution": 2, "deform_conv2d": 4, "linear": 2, "addmm": 0, "baddbmm": 0}


def channel_parameters(trace: Trace) -> dict[str, list[str]]:
    """By weight, the parameters that scale its output channels together.

    A mask entry stands on a channel's output: behind the batch norm if one follows at once, and so on its gamma and
    beta, else on the layer's weight and bias. (In front of a batch norm in training mode it would do nothing: the norm
    undoes any scale.) Of a layer that runs several times the entry stands behind each of its runs, and the norms behind
    all of them count.

    Raises:
        PxframeError: a batch norm without gamma and beta follows a layer, so no parameter stands for its channels.
    """
    found: dict[str, dict[str, None]] = {}  # names in their order, each once
    for node, name, at in multiplications(trace):
        norm = _norm_behind(node, at)
        if norm is not None:
            named = [trace.tensors[p] for p in norm.args[1:3] if isinstance(p, fx.Node)]
            if not named:
                raise PxframeError(
                    f"the batch norm behind {name!r} has no parameters (affine=False), so a channel's score cannot be "
                    f"formed; exclude {name!r}, or give the norm affine=True"
                )
        else:
            named = [name, *_bias(trace, node)]
        found.setdefault(name, {}).update(dict.fromkeys(named))
    return {name: list(parts) for name, parts in found.items()}


def _norm_behind(node: fx.Node, at: int) -> fx.Node | None:
    """The batch norm that alone reads the product ``node``, whose weight is the argument ``at``."""
    users = list(node.users)
    from_left = operation(node) not in CONVOLUTIONS and at == min(
        PRODUCTS[operation(node)]
    )  # W @ x: channels come first
    if len(users) == 1 and operation(users[0]) in BATCH_NORMS and (operation(node) == "linear" or not from_left):
        return users[0]
    return None


def _bias(trace: Trace, node: fx.Node) -> list[str]:
    at = _BIASES.get(operation(node), len(node.args))
    bias = node.args[at] if at < len(node.args) else None
    name = trace.tensors.get(bias) if isinstance(bias, fx.Node) else None
    return [name] if name is not None and name in trace.parameters else []


def channel_derivatives(net: Net, names: Mapping[str, list[str]], gradients: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """dL/dc of a mask entry c on each output channel, with its sign: the sum of p * dL/dp over its parameters p.

    Args:
        names: by weight, those parameters, as :func:`channel_parameters` gives them.
        gradients: dL/dp by name, at the masked weights, of the shape of p; of many losses at once ``[losses, *shape]``.

    Returns:
        by weight ``[out]``, or ``[losses, out]``.
    """
    values = {**net.parameters, **net.masked()}
    found = {}
    for name, weight in net.weights.items():
        sums = []
        for part in names.get(name) or [name]:
            product = values[part] * gradients[part]
            first = product.ndim - values[part].ndim
            sums.append(product.flatten(first).unflatten(first, (len(weight), -1)).sum(-1))
        found[name] = torch.stack(sums).sum(0)
    return found
