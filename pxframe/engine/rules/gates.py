"""Operations whose choice depends on the data: activations and max-pooling. Recorded in f, replayed in g, open in h."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

from pxframe.engine.rules.table import ACTIVATIONS, SIGMOIDS, SOFTMAX, Step, operation, rule, unknown
from pxframe.engine.scaled import Scaled, add, align


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
    if torch.is_grad_enabled():
        opened = (opened > 0).view(torch.uint8)  # kept for the backward pass, in a quarter of the memory
    return value.map(lambda m: torch.ops.aten.threshold_backward(m, opened, 0))


@rule(*ACTIVATIONS - {"relu"})
def gate(step: Step) -> Scaled:
    """The gate of an activation phi, phi(0) = 0, is phi(z) / z, and counts squared; at z = 0 its limit from below."""
    value = step.path()
    numbers = [a for a in (*step.args[1:], *step.node.kwargs.values()) if isinstance(a, (int, float))]
    if operation(step.node) in ("hardtanh", "clamp", "clamp_min", "clamp_max"):
        _check_range(step)
    if not step.reading.replay:
        return value
    z = step.raw(step.args[0])
    z = torch.where(z == 0, -(torch.finfo(z.dtype).eps ** 2), z)
    args = [step.raw(a) for a in step.args[1:]]
    opened = (step.node.target(z, *args, **step.node.kwargs) / z).to(value.mantissa.dtype)  # type: ignore[operator]
    if operation(step.node) == "_prelu_kernel":
        return step.linear(value, lambda m: m * opened.square(), math.inf)  # its slope is a tensor, without a bound
    # |phi(z) / z| is at most 1, or at most the product of the slopes among the arguments.
    bits = 2 * math.log2(math.prod(max(1.0, abs(n)) for n in numbers))
    return value.map(lambda m: m * opened.square(), bits)


@rule(*SIGMOIDS)
def gate_with_bias(step: Step) -> Scaled:
    """phi(0) is a bias, where no path begins; the gate is (phi(z) - phi(0)) / z, at most 1, and counts squared."""
    value = step.path()
    if not step.reading.replay:
        return value
    z = step.raw(step.args[0]).to(value.mantissa.dtype)
    z = torch.where(z.abs() < 1e-3, 1e-3, z)  # nearer to 0 the difference is rounding; the gate hardly changes there
    start = step.node.target(torch.zeros_like(z[:1]), *step.args[1:], **step.node.kwargs)  # type: ignore[operator]
    opened = (step.node.target(z, *step.args[1:], **step.node.kwargs) - start) / z  # type: ignore[operator]
    return value.map(lambda m: m * opened.square())


def _check_range(step: Step) -> None:
    """Refuse a range that leaves out zero: then phi(0) is not 0."""
    low, high = {
        "clamp_min": (step.option(1, "min"), None),
        "clamp_max": (None, step.option(1, "max")),
    }.get(operation(step.node), (step.option(1, "min", None), step.option(2, "max", None)))
    if operation(step.node) == "hardtanh":
        low, high = step.option(1, "min_val", -1.0), step.option(2, "max_val", 1.0)
    outside = isinstance(low, (int, float)) and low > 0, isinstance(high, (int, float)) and high < 0
    if any(outside) or isinstance(low, fx.Node) or isinstance(high, fx.Node):
        raise unknown(step.node, "with a range that leaves out zero")


@rule(*SOFTMAX, "exp")
def factor(step: Step) -> Scaled:
    """These make factors. Where a factor has a path value, it is that of what it is made from (see ``sharing``)."""
    return step.path()


@rule("pow")
def power(step: Step) -> Scaled:
    """z**n with n at least 1 lets z through with the gate z**(n - 1)."""
    value, exponent = step.path(), float(step.args[1])
    if not step.reading.replay or exponent == 1:
        return value
    opened = step.raw(step.args[0]).to(value.mantissa.dtype).abs().pow(2 * (exponent - 1))
    return Scaled(value.mantissa * opened, value.exponent).measured()


@rule("abs")
def magnitude(step: Step) -> Scaled:
    """The gate is the sign, and counts squared."""
    return step.path()


@rule("amax", "amin", "max", "min")
def extreme(step: Step) -> Any:
    """The largest (smallest) along dimensions. Its gates are open at one position, the first of equals.

    With all gates open, all positions are summed, or with ``pool="max"`` the largest path value is taken.
    """
    value = step.path()
    with_index = operation(step.node) in ("max", "min")
    dims = step.option(1, "dim")
    if with_index and isinstance(dims, fx.Node):
        return _larger(step)
    ndim = len(step.args[0].meta["val"].shape)
    dims = list(range(ndim)) if dims is None or dims == [] else [dims] if isinstance(dims, int) else list(dims)
    dims = sorted(d % ndim for d in dims)
    keep = bool(step.option(2, "keepdim", False))

    def along(tensor: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        """``function`` of the positions along ``dims``, which are the last dimension of what it is given."""
        rest = [d for d in range(ndim) if d not in dims]
        out = function(tensor.permute(*rest, *dims).flatten(len(rest)))
        for d in dims if keep else ():
            out = out.unsqueeze(d)
        return out

    if step.reading.replay:
        z = step.raw(step.args[0])
        sign = 1 if operation(step.node) in ("amax", "max") else -1
        rest = [d for d in range(ndim) if d not in dims]
        at = (sign * z).permute(*rest, *dims).flatten(len(rest)).argmax(-1, keepdim=True)
        out = value.map(lambda m: along(m, lambda t: t.gather(-1, at).squeeze(-1)))
    elif step.reading.pool == "max":
        out = value.map(lambda m: along(m, lambda t: t.amax(-1)))
    else:
        size = math.prod(value.mantissa.shape[d] for d in dims)
        out = step.linear(value, lambda m: along(m, lambda t: t.sum(-1)), math.log2(max(1, size)))
    return [out, None] if with_index and step.option(1, "dim") is not None else out


@rule("maximum", "minimum")
def _larger(step: Step) -> Scaled:
    """Of two values: f's choice in a replay, their sum (or the larger) with all gates open."""
    step.refuse_factors(step.args[:2])
    sides = [at for at in (0, 1) if step.is_path(step.args[at])]
    terms = [step.path(at) for at in sides]
    if step.reading.replay:
        one, other = (step.raw(argument) for argument in step.args[:2])
        first = one >= other if operation(step.node) in ("maximum", "max") else one <= other
        chosen = (first, ~first)
        terms = [_masked(term, chosen[at]) for term, at in zip(terms, sides, strict=True)]
    elif step.reading.pool == "max" and len(terms) == 2:
        one, other = align(terms)
        return Scaled(torch.maximum(one.mantissa, other.mantissa), one.exponent, max(one.growth, other.growth))
    return add(terms).map(lambda m: m.expand(step.result_shape()))


@rule("where", "masked_fill")
def where(step: Step) -> Scaled:
    """A choice by a condition. One that depends on data is replayed, and open both ways where nothing is replayed."""
    if operation(step.node) == "where":
        condition, *branches = step.args
    else:
        branches = [step.args[2], step.args[0]]
        condition = step.args[1]
    step.refuse_factors(branches)
    known = step.reading.replay or condition not in step.trace.active
    terms = []
    for index, branch in enumerate(branches):
        if not step.is_path(branch):
            continue
        value = step.paths[branch]
        if known:
            taken = step.raw(condition) if index == 0 else ~step.raw(condition)
            value = _masked(value, taken)
        terms.append(value)
    return add(terms).map(lambda m: m.expand(step.result_shape()))


def _masked(value: Scaled, taken: Tensor) -> Scaled:
    return value.map(lambda m: m * taken)


@rule("max_pool2d_with_indices", "max_pool3d_with_indices", "adaptive_max_pool2d")
def max_pool(step: Step) -> list[Any]:
    """f's choice in a replay; with all gates open the sum of each window, or with ``pool="max"`` its largest value."""
    value = step.path()
    if step.reading.replay:
        chosen: Tensor = step.values[step.node][1]
        axes = 3 if "3d" in operation(step.node) else 2
        flat = chosen.flatten(-axes)
        return [value.map(lambda m: m.flatten(-axes).gather(-1, flat).view(chosen.shape)), None]
    if step.reading.pool == "max":
        return [value.map(lambda m: step.node.target(m, *step.args[1:], **step.node.kwargs)[0]), None]  # type: ignore[operator]
    return [_window_sum(step, value), None]


def _window_sum(step: Step, value: Scaled) -> Scaled:
    """Max-pooling with every gate open: the sum over each window."""
    if operation(step.node) == "adaptive_max_pool2d":
        sizes = list(zip(value.mantissa.shape[-2:], step.args[1], strict=True))
        rows, columns = (_windows(size, out, value.mantissa) for size, out in sizes)
        bits = math.log2(math.prod(size // out + 2 for size, out in sizes))
        return step.linear(value, lambda m: rows @ m @ columns.mT, bits)
    kernel, stride = list(step.args[1]), list(step.option(2, "stride") or step.args[1])
    padding, dilation = step.option(3, "padding", 0), step.option(4, "dilation", 1)
    if any(d != 1 for d in (dilation if isinstance(dilation, (list, tuple)) else [dilation])):
        raise unknown(step.node, "with dilation and all gates open")
    average = torch.ops.aten.avg_pool3d if "3d" in operation(step.node) else torch.ops.aten.avg_pool2d
    ceil = step.option(5, "ceil_mode", False)
    held = value.mantissa.shape[-len(kernel) :]
    if not ceil and any(size < k for size, k in zip(held, kernel, strict=True)):
        # Max-pooling takes maps that are smaller than its kernel, average pooling does not.
        sides = padding if isinstance(padding, (list, tuple)) else [padding]
        margins = list(sides) * (len(kernel) // len(sides))
        around = [margin for margin in reversed(margins) for _ in range(2)]
        pooled = lambda m: average(torch.constant_pad_nd(m, around), kernel, stride, 0, False, True, 1)  # noqa: E731
    else:
        pooled = lambda m: average(m, kernel, stride, padding, ceil, True, 1)  # noqa: E731
    return step.linear(value, pooled, math.log2(math.prod(kernel)))


def _windows(size: int, out: int, like: Tensor) -> Tensor:
    """Which of ``size`` positions each of ``out`` adaptive windows holds: 1 or 0, [out, size]."""
    at = torch.arange(size, device=like.device)
    window = torch.arange(out, device=like.device)[:, None]
    return ((at >= window * size // out) & (at < -(-(window + 1) * size // out))).to(like.dtype)
