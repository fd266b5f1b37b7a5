"""Products: by weights, by constants, by factors, and of two values that both carry paths."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

from pxframe.engine.rules.table import Step, rule
from pxframe.engine.scaled import Scaled, add

#: Path values below this share of the largest count as none: in float32 their inverse would leave no room.
_LEAST = 1e-20


@rule("convolution")
def convolution(step: Step) -> Scaled:
    _, weight_node, _, *geometry = step.args
    transposed = geometry[3]
    convolve = lambda m, w: torch.convolution(m, w, None, *geometry)  # noqa: E731

    def apply(value: Scaled, weight: Tensor) -> Scaled:
        """``weight``: [out, in / groups, *kernel]; transposed: [in, out / groups, *kernel]."""
        terms = weight.numel() // max(1, weight.shape[1 if transposed else 0])
        return step.weighted(value, weight_node, weight, convolve, terms)

    return _multiplied(step, 0, 1, apply)


@rule("addmm", "baddbmm")
def addmm(step: Step) -> Scaled:
    """beta * start + alpha * x @ w. A start that does not depend on the input is a bias: no path begins there."""
    step.refuse_factors(step.args[:1])
    product = by_number(step, _matrix_product(step, 1, 2), step.node.kwargs.get("alpha", 1))
    if not step.is_path(step.args[0]):
        return product
    start = by_number(step, step.path(), step.node.kwargs.get("beta", 1))
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


@rule("mul")
def multiplication(step: Step) -> Scaled:
    if not isinstance(step.args[1], fx.Node):
        return by_number(step, step.path(), step.args[1])
    return _elementwise(step, 0, 1)


@rule("addcmul")
def addcmul(step: Step) -> Scaled:
    """a + value * b * c."""
    start, *product = step.args[:3]
    step.refuse_factors([start])
    terms = [step.paths[start]] if step.is_path(start) else []
    if any(step.is_path(argument) for argument in product):
        terms.append(by_number(step, _elementwise(step, 1, 2), step.node.kwargs.get("value", 1)))
    return add(terms)


@rule("div")
def division(step: Step) -> Scaled:
    divisor = step.args[1]
    if isinstance(divisor, fx.Node):
        coefficient = step.fixed(divisor)
        return step.linear(step.path(), lambda m: m / coefficient, _bits(step, divisor))
    return by_number(step, step.path(), 1 / divisor)


def _matrix_product(step: Step, left: int, right: int) -> Scaled:
    """``left @ right``, the positions of two arguments. With its gates open, a recorded side takes the mean."""

    def carry(carrier: int, recorded: int) -> Scaled:
        node, from_right = step.args[recorded], recorded == right

        def apply(value: Scaled, weight: Tensor) -> Scaled:
            """``weight``: on the right [..., in, out], on the left [..., out, in]."""
            weight = _once(weight)
            terms = weight.shape[-2 if from_right else -1]
            out = step.weighted(value, node, weight, lambda m, w: m @ w if from_right else w @ m, terms)
            is_open = step.is_recorded(node) and not step.reading.replay
            return by_number(step, out, 1 / terms) if is_open else out

        return _multiplied(step, carrier, recorded, apply)

    return _either(step, left, right, carry, torch.matmul)


def _elementwise(step: Step, left: int, right: int) -> Scaled:
    """``left * right``, the positions of two arguments."""

    def carry(carrier: int, recorded: int) -> Scaled:
        def apply(value: Scaled, coefficient: Tensor) -> Scaled:
            return step.linear(value, lambda m: m * coefficient, _bits(step, step.args[recorded]))

        return _multiplied(step, carrier, recorded, apply)

    return _either(step, left, right, carry, torch.mul)


def _multiplied(step: Step, carrier: int, recorded: int, apply: Callable[[Scaled, Tensor], Scaled]) -> Scaled:
    """The side that carries the paths, multiplied by what the other side counts for.

    If that side is a factor that shares, half of the score goes back through it, by the formula in ``sharing``.

    Args:
        apply: the product of a path value and a factor; linear in both.
    """
    value, factor, node = step.path(carrier), step.fixed(step.args[recorded]), step.args[recorded]
    if step.trace.shared is None or not step.shares(node) or step.carries(recorded):
        return apply(value, factor)
    path = step.paths[node].measured().mantissa
    held = path.detach()  # [p]
    reached = (held > _LEAST) & held.isfinite()  # by a path
    half = torch.where(reached, factor / 2, 0)
    share = half * torch.where(reached, path, 0) / torch.where(reached, held, 1)
    constant = Scaled(value.mantissa.detach(), value.exponent, value.growth)
    return add([apply(value, factor - half), apply(constant, share)])


def _either(
    step: Step,
    left: int,
    right: int,
    carry: Callable[[int, int], Scaled],
    multiply: Callable[[Tensor, Tensor], Tensor],
) -> Scaled:
    """A product by ``carry(position of the side with the paths, position of the other)``; see ``roles``.

    Where paths run through both sides, each of the two terms counts half of the other side; or, in what only shares a
    factor's score, the two are multiplied.
    """
    sides = [pair for pair in ((left, right), (right, left)) if step.carries(pair[0])]
    if len(sides) == 2 and step.is_shared:
        return _halves(step.path(left).measured(), step.path(right).measured(), multiply)
    terms = [carry(*pair) for pair in sides]
    if len(terms) == 1:
        return terms[0]
    half = 0.25 if step.reading.replay else 0.5**step.reading.power  # what is recorded counts squared
    return add([step.linear(term, lambda m: m * half, 0.0) for term in terms])


def _halves(one: Scaled, other: Scaled, multiply: Callable[[Tensor, Tensor], Tensor]) -> Scaled:
    """The product of two path values, each of which gets one half of the score.

    Where no path leads to a side (the query of a class token; a row of a matrix that is all zeros), it counts as a
    constant of 1, and the other side gets all. Where no path leads to either, the product is 0.
    """
    m, n, matrices = one.mantissa, other.mantissa, multiply is torch.matmul
    left = (m.detach().amax(-1, keepdim=True) if matrices else m.detach()) > 0
    right = (n.detach().amax(-2, keepdim=True) if matrices else n.detach()) > 0
    m, n = torch.where(left, m, 1), torch.where(right, n, 1)
    through_m = left * torch.where(right, 0.5, 1.0).to(m.dtype) * multiply(m, n.detach())
    through_n = right * torch.where(left, 0.5, 1.0).to(n.dtype) * multiply(m.detach(), n)
    return Scaled(through_m + through_n, one.exponent + other.exponent).measured()


def _bits(step: Step, node: fx.Node) -> float:
    """log2 of the growth by the entries of ``node``: 0 where paths are counted, no bound for what depends on data."""
    return math.inf if node in step.trace.active else 0.0


def _once(weight: Tensor) -> Tensor:
    """Undo the expansion of a matrix over the batch, so that its gradient is not formed for every sample."""
    while weight.ndim > 2 and weight.stride(0) == 0:
        weight = weight[0]
    return weight


def by_number(step: Step, value: Scaled, factor: Any) -> Scaled:
    """Multiply by a number."""
    if abs(factor) == 1 or (step.reading.power == 0 and factor != 0):
        return value
    return step.linear(value, lambda m: m * abs(float(factor)) ** max(step.reading.power, 1), 0.0)
