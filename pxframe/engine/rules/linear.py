"""Linear operations: weights, sums, and the fixed coefficients of pooling and interpolation."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

from pxframe.engine.reading import powered
from pxframe.engine.rules.table import Step, operation, rule
from pxframe.engine.scaled import Scaled, add

# --- weights ------------------------------------------------------------------------------------------------------


@rule("convolution")
def convolution(step: Step) -> Scaled:
    _, weight_node, _, *geometry = step.args
    weight = step.fixed(weight_node)  # [out, in / groups, *kernel]; transposed: [in, out / groups, *kernel]
    transposed = geometry[3]
    terms = weight.numel() // max(1, weight.shape[1 if transposed else 0])
    convolve = lambda m, w: torch.ops.aten.convolution(m, w, None, *geometry)  # noqa: E731
    return step.weighted(step.path(), weight_node, weight, convolve, terms)


@rule("addmm", "baddbmm")
def addmm(step: Step) -> Scaled:
    """beta * start + alpha * x @ w. A start that does not depend on the input is a bias: no path begins there."""
    step.refuse_factors(step.args[:1])
    product = _scaled_by(step, _matrix_product(step, 1, 2), step.node.kwargs.get("alpha", 1))
    if not step.is_path(step.args[0]):
        return product
    start = _scaled_by(step, step.path(), step.node.kwargs.get("beta", 1))
    return add([product, start])


@rule("mm", "bmm", "matmul")
def mm(step: Step) -> Scaled:
    return _matrix_product(step, 0, 1)


@rule("linear")
def linear(step: Step) -> Scaled:
    weight = step.fixed(step.args[1])  # [out, in]
    return step.weighted(step.path(), step.args[1], weight, lambda m, w: m @ w.mT, weight.shape[-1])


@rule("embedding")
def embedding(step: Step) -> Scaled:
    """Paths begin at the table's rows: at the row of each index in a replay, at all rows with the gates open."""
    weight, at = step.fixed(step.args[0]), step.args[1]
    start = Scaled.of(weight.new_ones(at.meta["val"].shape))
    if step.reading.replay:
        indices = step.raw(at)
        return step.weighted(start, step.args[0], weight, lambda m, w: m.unsqueeze(-1) * w[indices], 1)
    return step.weighted(start, step.args[0], weight, lambda m, w: m.unsqueeze(-1) * w.sum(0), len(weight))


def _matrix_product(step: Step, left: int, right: int) -> Scaled:
    """``left @ right``, the positions of two arguments. With its gates open, a recorded side takes the mean."""

    def carry(carrier: int, recorded: int) -> Scaled:
        node = step.args[recorded]
        weight = _once(step.fixed(node))  # on the right [..., in, out], on the left [..., out, in]
        from_right = recorded == right
        terms = weight.shape[-2 if from_right else -1]
        value = step.path(carrier)
        out = step.weighted(value, node, weight, lambda m, w: m @ w if from_right else w @ m, terms)
        is_open = step.is_recorded(node) and not step.reading.replay
        return _scaled_by(step, out, 1 / terms) if is_open else out

    return _either(step, left, right, carry)


def _either(step: Step, left: int, right: int, carry: Callable[[int, int], Scaled]) -> Scaled:
    """A product by ``carry(position of the side with the paths, position of the other)``; see ``roles``.

    Where paths run through both sides, each of the two terms counts half of the other side.
    """
    sides = [pair for pair in ((left, right), (right, left)) if step.carries(pair[0])]
    terms = [carry(*pair) for pair in sides]
    if len(terms) == 1:
        return terms[0]
    half = 0.25 if step.reading.replay else 0.5**step.reading.power  # what is recorded counts squared
    return add([step.linear(term, lambda m: m * half, 0.0) for term in terms])


def _bits(step: Step, node: fx.Node) -> float:
    """log2 of the growth by the entries of ``node``: 0 where paths are counted, no bound for what depends on data."""
    return math.inf if node in step.trace.active else 0.0


def _once(weight: Tensor) -> Tensor:
    """Undo the expansion of a matrix over the batch, so that its gradient is not formed for every sample."""
    while weight.ndim > 2 and weight.stride(0) == 0:
        weight = weight[0]
    return weight


# --- sums and constant factors -------------------------------------------------------------------------------------


@rule("add", "rsub")
def addition(step: Step) -> Scaled:
    """a + alpha * b; ``rsub`` is b - alpha * a, and a difference counts like a sum.

    A summand that does not depend on the input is a bias: no path starts there.
    """
    step.refuse_factors(step.args[:2])
    multiplied = 0 if operation(step.node) == "rsub" else 1
    terms: list[Scaled] = []
    over = None
    for index, argument in enumerate(step.args[:2]):
        if step.is_path(argument):
            factor = step.node.kwargs.get("alpha", 1) if index == multiplied else 1
            over = len(terms) if step.reuse == index else over
            terms.append(_scaled_by(step, step.paths[argument], factor))
    shape = step.result_shape()
    if over is not None and not (len(terms) > 1 and step.may_write(terms[over], shape)):
        over = None
    total = add(terms, over)
    return total if total.mantissa.shape == shape else total.map(lambda m: m.expand(shape))


@rule("mul")
def multiplication(step: Step) -> Scaled:
    if not isinstance(step.args[1], fx.Node):
        return _scaled_by(step, step.path(), step.args[1])
    return _either(step, 0, 1, lambda carrier, other: _scaled_by(step, step.path(carrier), step.args[other]))


@rule("addcmul")
def addcmul(step: Step) -> Scaled:
    """a + value * b * c."""
    start, *product = step.args[:3]
    step.refuse_factors([start])
    terms = [step.paths[start]] if step.is_path(start) else []
    if any(step.is_path(argument) for argument in product):
        both = _either(step, 1, 2, lambda carrier, other: _scaled_by(step, step.path(carrier), step.args[other]))
        terms.append(_scaled_by(step, both, step.node.kwargs.get("value", 1)))
    return add(terms)


@rule("div")
def division(step: Step) -> Scaled:
    divisor = step.args[1]
    if isinstance(divisor, fx.Node):
        coefficient = step.fixed(divisor)
        return step.linear(step.path(), lambda m: m / coefficient, _bits(step, divisor))
    return _scaled_by(step, step.path(), 1 / divisor)


@rule("neg")
def negation(step: Step) -> Scaled:
    return step.path()


def _scaled_by(step: Step, value: Scaled, factor: Any) -> Scaled:
    """Multiply by a coefficient: a number, a node that does not depend on the input, or a factor."""
    if isinstance(factor, fx.Node):
        coefficient = step.fixed(factor)
        return step.linear(value, lambda m: m * coefficient, _bits(step, factor))
    if abs(factor) == 1 or (step.reading.power == 0 and factor != 0):
        return value
    return step.linear(value, lambda m: m * abs(float(factor)) ** max(step.reading.power, 1), 0.0)


# --- pooling and interpolation: fixed coefficients ------------------------------------------------------------------


@rule("mean", "sum")
def mean(step: Step) -> Scaled:
    value = step.path()
    dims = step.option(1, "dim") or list(range(value.mantissa.ndim))
    keep = bool(step.option(2, "keepdim", False))
    size = math.prod(value.mantissa.shape[d] for d in dims)
    total = step.linear(value, lambda m: m.sum(dims, keepdim=keep), math.log2(max(1, size)))
    return _scaled_by(step, total, 1 / size) if operation(step.node) == "mean" else total


@rule("avg_pool2d", "avg_pool3d")
def avg_pool(step: Step) -> Scaled:
    """A sum over each window times (1 / what f divided by)."""
    kernel, stride = step.args[1], step.option(2, "stride") or step.args[1]
    padding, ceil = step.option(3, "padding", 0), step.option(4, "ceil_mode", False)
    value, operator = step.path(), step.node.target.overloadpacket  # type: ignore[union-attr]

    def window_sum(m: Tensor) -> Tensor:
        return operator(m, kernel, stride, padding, ceil, True, 1)

    total = step.linear(value, window_sum, math.log2(math.prod(kernel)))
    ones = torch.ones_like(value.mantissa[:1, :1])
    divided = operator(ones, *step.args[1:], **step.node.kwargs)
    coefficient = powered(divided / window_sum(ones), step.reading.power)
    return step.linear(total, lambda m: m * coefficient, 0.0)


@rule("_adaptive_avg_pool2d", "adaptive_avg_pool2d")
def adaptive_avg_pool2d(step: Step) -> Scaled:
    return _separable(step, lambda x, width, _: torch.ops.aten._adaptive_avg_pool2d(x, [1, width]))


@rule("upsample_bilinear2d", "_upsample_bilinear2d_aa", "upsample_bicubic2d", "_upsample_bicubic2d_aa")
def interpolation(step: Step) -> Scaled:
    align_corners = step.option(2, "align_corners", False)
    factors = step.option(3, "scales_h"), step.option(4, "scales_w")  # where the user gave factors, not sizes
    operator = step.node.target.overloadpacket.default  # type: ignore[union-attr]
    return _separable(step, lambda x, width, axis: operator(x, [1, width], align_corners, None, factors[axis]))


def _separable(step: Step, operator: Callable[[Tensor, int, int], Tensor]) -> Scaled:
    """Y = A X B^T: read A and B off the operation itself, then raise their entries to the power.

    ``operator`` resizes the last axis of ``[N, C, 1, W]`` to a width, as it would rows (axis 0) or columns (1).
    """
    value = step.path()

    def matrix(size: int, out: int, axis: int) -> Tensor:
        basis = torch.eye(size, dtype=torch.float64, device=value.mantissa.device)
        basis = basis.view(1, size, 1, size)  # channel j holds the unit vector j
        entries = operator(basis, out, axis).view(size, out).T  # [out, in]
        entries = torch.where(entries.abs() < 1e-9, 0.0, entries)  # rounding is not a path
        return powered(entries, step.reading.power).to(value.mantissa)

    (in_h, in_w), (out_h, out_w) = value.mantissa.shape[-2:], step.result_shape()[-2:]
    key = (step.node, step.reading.power, value.mantissa.dtype)
    if key not in step.trace.tables:
        step.trace.tables[key] = matrix(in_h, out_h, 0), matrix(in_w, out_w, 1)
    rows, columns = step.trace.tables[key]
    return step.linear(value, lambda m: rows @ m @ columns.mT, math.log2(in_h * in_w))
