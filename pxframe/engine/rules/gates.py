"""Operations whose choice depends on the data: activations and max-pooling. Recorded in f, replayed in g, open in h."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from pxframe.engine.rules.table import Step, operation, rule, unknown
from pxframe.engine.scaled import Scaled


@rule("relu")
def relu(step: Step) -> Scaled:
    """The gate is 1 where f's input, and so its output, was positive, else 0."""
    value = step.path()
    if not step.reading.replay:
        return value
    opened = step.raw(step.node).to(value.mantissa.dtype)
    if step.reuse is not None and step.may_write(value, tuple(opened.shape)):
        m = value.mantissa
        torch.ops.aten.threshold_backward.grad_input(m, opened, 0, grad_input=m)  # one pass, no mask of its own
        return value
    return value.map(lambda m: torch.ops.aten.threshold_backward(m, opened, 0))


@rule("leaky_relu", "gelu", "silu", "hardswish", "hardtanh", "elu", "tanh")
def gate(step: Step) -> Scaled:
    """The gate of an activation phi, phi(0) = 0, is phi(z) / z, and counts squared; at z = 0 its limit from below."""
    value = step.path()
    numbers = [abs(a) for a in step.args[1:] if isinstance(a, (int, float))]
    if operation(step.node) == "hardtanh" and step.option(1, "min_val", -1.0) > 0:
        raise unknown(step.node, "with a range that leaves out zero")
    if not step.reading.replay:
        return value
    z = step.raw(step.args[0])
    z = torch.where(z == 0, -(torch.finfo(z.dtype).eps ** 2), z)
    opened = (step.node.target(z, *step.args[1:], **step.node.kwargs) / z).to(value.mantissa.dtype)  # type: ignore[operator]
    # |phi(z) / z| is at most 1, or at most the product of the slopes among the arguments.
    bits = 2 * math.log2(math.prod(max(1.0, n) for n in numbers))
    return value.map(lambda m: m * opened.square(), bits)


@rule("max_pool2d_with_indices", "adaptive_max_pool2d")
def max_pool2d(step: Step) -> list[Any]:
    value = step.path()
    if step.reading.replay:
        chosen: Tensor = step.values[step.node][1]
        flat = chosen.flatten(-2)
        return [value.map(lambda m: m.flatten(-2).gather(-1, flat).view(chosen.shape)), None]
    if step.reading.pool == "max":
        return [value.map(lambda m: step.node.target(m, *step.args[1:], **step.node.kwargs)[0]), None]  # type: ignore[operator]
    return [_window_sum(step, value), None]


def _window_sum(step: Step, value: Scaled) -> Scaled:
    """Max-pooling with every gate open: the sum over each window."""
    if operation(step.node) == "adaptive_max_pool2d":
        raise unknown(step.node, "with all gates open")
    kernel, stride = list(step.args[1]), list(step.option(2, "stride") or step.args[1])
    padding, dilation = step.option(3, "padding", 0), step.option(4, "dilation", 1)
    if any(d != 1 for d in (dilation if isinstance(dilation, (list, tuple)) else [dilation])):
        raise unknown(step.node, "with dilation and all gates open")
    ceil = step.option(5, "ceil_mode", False)
    pooled = lambda m: torch.ops.aten.avg_pool2d(m, kernel, stride, padding, ceil, True, 1)  # noqa: E731
    return step.linear(value, pooled, math.log2(math.prod(kernel)))
