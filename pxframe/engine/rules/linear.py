"""Linear operations: weights, sums, and the fixed coefficients of pooling and interpolation."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from pxframe.engine.reading import powered
from pxframe.engine.rules.products import by_number
from pxframe.engine.rules.table import Step, operation, rule
from pxframe.engine.scaled import Scaled, add


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
            terms.append(by_number(step, step.paths[argument], factor))
    shape = step.result_shape()
    if over is not None and not (len(terms) > 1 and step.may_write(terms[over], shape)):
        over = None
    total = add(terms, over)
    return total if total.mantissa.shape == shape else total.map(lambda m: m.expand(shape))


@rule("neg")
def negation(step: Step) -> Scaled:
    return step.path()


# --- pooling and interpolation: fixed coefficients ------------------------------------------------------------------


@rule("mean", "sum")
def mean(step: Step) -> Scaled:
    value = step.path()
    dims = step.option(1, "dim") or list(range(value.mantissa.ndim))
    keep = bool(step.option(2, "keepdim", False))
    size = math.prod(value.mantissa.shape[d] for d in dims)
    total = step.linear(value, lambda m: m.sum(dims, keepdim=keep), math.log2(max(1, size)))
    return by_number(step, total, 1 / size) if operation(step.node) == "mean" else total


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
