"""Batch normalisation: at eval a diagonal of positive coefficients, so a part of the weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from pxframe.engine.rules import Step, rule, unknown
from pxframe.engine.scaled import Scaled, power_of_two

#: aten names of batch normalisation, all with (input, weight, bias, running mean, running variance, ...).
BATCH_NORMS = (
    "native_batch_norm",
    "cudnn_batch_norm",
    "miopen_batch_norm",
    "_native_batch_norm_legit",
    "_native_batch_norm_legit_no_training",
    "_batch_norm_no_update",
    "_batch_norm_with_update",
    "batch_norm",
)


@rule(*BATCH_NORMS)
def batch_norm(step: Step) -> Any:
    value = step.path()
    gamma, variance = step.args[1], step.args[4]
    if not isinstance(variance, fx.Node):
        raise unknown(step.node, "without running statistics")
    if step.reading.norm == "batch":
        out = _own_statistics(step, value, gamma)
    elif step.reading.power == 0:
        out = value if gamma is None else step.linear(value, lambda m: m * _channels(step.fixed(gamma), m), 0.0)
    else:
        power = step.reading.power
        held = (step.reading.variances or {}).get(step.names.get(variance, ""))
        spread = (step.raw(variance) if held is None else held).to(value.mantissa.dtype) + epsilon(step.node)
        scale = spread.pow(-power / 2)
        if gamma is not None:
            scale = scale * step.fixed(gamma)
        out = step.linear(value, lambda m: m * _channels(scale, m), 0.0)
    return [out, None, None, None, None]


def _own_statistics(step: Step, value: Scaled, gamma: Any) -> Scaled:
    """Training mode: the path network's values, normalised by their own mean and variance, times gamma."""
    m = value.mantissa
    dims = [d for d in range(m.ndim) if d != 1]
    variance, mean = torch.var_mean(m, dims, correction=0, keepdim=True)
    eps = epsilon(step.node) * power_of_two((-2 * value.exponent).clamp(-120, 120), m)
    out = (m - mean) * torch.rsqrt(variance + eps)
    if gamma is not None:
        out = out * _channels(step.fixed(gamma), m)
    return Scaled.of(out)


def epsilon(node: fx.Node) -> float:
    """The eps of a batch-norm node: its last float argument in every variant."""
    return float(next(a for a in reversed(node.args) if isinstance(a, float)))


def batch_statistics(node: fx.Node, inputs: Tensor, weight: Any, bias: Any) -> tuple[Tensor, Tensor]:
    """What f's batch norm gives in training mode, and the (biased) batch variance per channel."""
    dims = [d for d in range(inputs.ndim) if d != 1]
    variance = torch.var(inputs, dims, correction=0)
    out = torch.nn.functional.batch_norm(inputs, None, None, weight, bias, training=True, eps=epsilon(node))
    return out, variance


def _channels(vector: Tensor, like: Tensor) -> Tensor:
    return vector.view(1, -1, *[1] * (like.ndim - 2))
