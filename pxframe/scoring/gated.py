"""What an output channel is made of: the parameters that a mask entry on it multiplies."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, fx

from pxframe.engine.graph import Trace
from pxframe.engine.rules.norms import BATCH_NORMS
from pxframe.engine.rules.table import operation
from pxframe.scoring.flops import multiplications


def channel_parameters(trace: Trace) -> dict[str, list[str]]:
    """By weight, the parameters that scale its output channels together.

    A mask entry stands on a channel's output: behind the batch norm, if one follows at once, so on its gamma and beta;
    else on the layer's weight and bias. (In front of a batch norm in training mode it would do nothing: the norm undoes
    any scale.)
    """
    found: dict[str, list[str]] = {}
    for node, name, _ in multiplications(trace):
        users = list(node.users)
        after = users[0] if len(users) == 1 and operation(users[0]) in BATCH_NORMS else None
        if after is not None and operation(node) == "convolution":
            parts = [after.args[1], after.args[2]]
            found[name] = [trace.tensors[p] for p in parts if isinstance(p, fx.Node)]
        else:
            bias = node.args[2] if operation(node) == "convolution" else node.args[0]
            named = trace.tensors.get(bias) if isinstance(bias, fx.Node) else None
            found[name] = [name] + ([named] if named in trace.parameters else [])
    return found


def channel_sums(
    names: Mapping[str, list[str]], products: Mapping[str, Tensor], weights: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """dL/dc from the products p * dL/dp of parameters: by weight, their sum over each output channel, ``[out]``."""
    sums = {}
    for name, weight in weights.items():
        parts = [products[n].reshape(len(weight), -1).sum(1) for n in names.get(name) or [name]]
        sums[name] = torch.stack(parts).sum(0)
    return sums
