"""Normalisation: a diagonal of positive scales; the shift is dropped.

The scale of batch norm in eval mode is gamma / sigma with a fixed sigma, so all of it is a part of the weights. Layer
and group norm divide by the sigma of the sample: gamma is a weight, and 1 / sigma is a factor (see ``factors.py``).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, fx

from pxframe.base.errors import PxframeError
from pxframe.engine.rules.linear import addition
from pxframe.engine.rules.table import Step, operation, rule
from pxframe.engine.scaled import Exponent, Scaled

#: A variance below this share of a batch norm's eps is that of rounding.
_CONSTANT = 1e-3
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
        return _own_sigma(step, value, gamma)
    if step.reading.power == 0:
        out = value
        if gamma is not None and step.trace.tensors.get(gamma) not in step.reading.ones:
            out = step.linear(value, lambda m: m * _channels(step.fixed(gamma), m), 0.0)
    else:
        if step.node not in step.reading.scales:
            step.reading.scales[step.node] = _fixed_scale(step, gamma, variance)
        scale, exponent = step.reading.scales[step.node]
        out = value.map(lambda m: m * scale)
        out = Scaled(out.mantissa, out.exponent + exponent, out.growth)
    return [out, None, None, None, None]


def _own_sigma(step: Step, value: Scaled, gamma: Any) -> Any:
    """Without running statistics f divides by the sigma of its batch (of each sample: instance norm), a factor."""
    if step.reading.replay:
        inverse = _channels(step.values[step.node][2], value.mantissa)
        value = _over_sigma(value, inverse, epsilon(step.node))
    if gamma is not None:
        value = step.linear(value, lambda m: m * _channels(step.fixed(gamma), m), 0.0)
    return [value, None, None, None, None]


def _fixed_scale(step: Step, gamma: Any, variance: fx.Node) -> tuple[Tensor, Exponent]:
    """The norm's scale over the channels, as mantissas of at most 1 and their exponent."""
    held = (step.reading.variances or {}).get(step.trace.tensors.get(variance, ""))
    spread = (step.raw(variance) if held is None else held).double()
    scale = scale_of(None if gamma is None else step.fixed(gamma), spread, epsilon(step.node), step.reading.power)
    value, like = Scaled.of(scale), step.path().mantissa
    return _channels(value.mantissa, like).to(like.dtype), value.exponent


def scale_of(gamma: Tensor | None, variance: Tensor, eps: float, power: int) -> Tensor:
    """(|gamma| / sigma) ** power for each channel, in the dtype of ``variance``; ``gamma`` has that power already."""
    scale = (variance + eps).pow(-power / 2)
    return scale if gamma is None else scale * gamma


@rule("native_layer_norm")
def layer_norm(step: Step) -> Any:
    shape, gamma, eps = step.args[1], step.args[2], step.args[4]
    value = step.path()
    if step.reading.replay:
        value = _over_sigma(value, step.values[step.node][2], eps)  # 1 / sigma: [..., 1] over the normalised axes
    if gamma is not None:
        scale = step.fixed(gamma).view(shape)
        value = step.linear(value, lambda m: m * scale, 0.0)
    return [value, None, None]


@rule("native_group_norm")
def group_norm(step: Step) -> Any:
    gamma, groups, eps = step.args[1], step.args[6], step.args[7]
    value = step.path()
    if step.reading.replay:
        sigmas = step.values[step.node][2]  # 1 / sigma: [batch, groups]
        channels = sigmas.repeat_interleave(value.mantissa.shape[1] // groups, 1)
        value = _over_sigma(value, channels.view(*channels.shape, *[1] * (value.mantissa.ndim - 2)), eps)
    if gamma is not None:
        value = step.linear(value, lambda m: m * _channels(step.fixed(gamma), m), 0.0)
    return [value, None, None]


def _over_sigma(value: Scaled, inverse: Tensor, eps: float) -> Scaled:
    """Times (1 / sigma)**2, a factor that is at most 1 / eps."""
    squared = inverse.to(value.mantissa.dtype).square()
    return value.map(lambda m: m * squared, -math.log2(eps) if eps > 0 else math.inf)


@rule("sub")
def subtraction(step: Step) -> Scaled:
    """x minus its own mean is the shift of a normalisation written out, and is dropped. Otherwise a sum of paths."""
    return step.path() if _is_mean(step.args[1], step.args[0]) else addition(step)


def _is_mean(node: Any, of: Any) -> bool:
    if isinstance(node, fx.Node) and operation(node) == "getitem" and node.args[1] == 1:
        node = node.args[0]
        return isinstance(node, fx.Node) and operation(node) == "var_mean" and node.args[0] is of
    return isinstance(node, fx.Node) and operation(node) == "mean" and node.args[0] is of


def epsilon(node: fx.Node) -> float:
    """The eps of a batch-norm node: its last float argument in every variant."""
    return float(next(a for a in reversed(node.args) if isinstance(a, float)))


def batch_statistics(node: fx.Node, inputs: Tensor, weight: Any, bias: Any, running: Tensor) -> tuple[Tensor, Tensor]:
    """What f's batch norm gives in training mode, and the (biased) batch variance per channel.

    A channel that has the same value everywhere, as one without any weights, says nothing of its scale: its variance
    is the ``running`` one. Zero would scale the paths through it by gamma^2 / eps, and through a few of them beyond all
    numbers.
    """
    if inputs.numel() == inputs.shape[1]:
        raise PxframeError(
            f"batch statistics of one value per channel (node {node.name!r}, shape {tuple(inputs.shape)}); "
            f"give larger batches or images"
        )
    dims = [d for d in range(inputs.ndim) if d != 1]
    variance, eps = torch.var(inputs, dims, correction=0), epsilon(node)
    out = torch.nn.functional.batch_norm(inputs, None, None, weight, bias, training=True, eps=eps)
    return out, torch.where(variance < _CONSTANT * eps, running.to(variance.dtype), variance)


def _channels(vector: Tensor, like: Tensor) -> Tensor:
    return vector.view(1, -1, *[1] * (like.ndim - 2))
