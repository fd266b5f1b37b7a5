"""From R, the sum over all paths, to saliencies: S = dR/du * u for each weight u of a path network."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from pxframe.base.errors import PxframeError
from pxframe.engine.scaled import Exponent, Scaled, add, align, power_of_two, writable
from pxframe.network.net import Net
from pxframe.running.threads import repeatable


def contract(values: list[Scaled], counts: list[Scaled] | None = None) -> Scaled:
    """R = sum_k c_k h^k over all outputs; without ``counts``, sum_k h^k. A value without dimensions."""
    terms = []
    for index, value in enumerate(values):
        value = value.measured()
        if counts is None:
            terms.append(Scaled(value.mantissa.sum(), value.exponent))
        else:
            count = counts[index].measured()
            terms.append(Scaled((value.mantissa * count.mantissa).sum(), value.exponent + count.exponent))
    return add(terms)


def saliencies(net: Net, total: Scaled, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """S = dR/du * u for the prunable weights, u as they stand in the path network; see :func:`plain` for its range."""
    return plain(scaled_saliencies(net, total, weights))


def scaled_saliencies(net: Net, total: Scaled, weights: Mapping[str, Tensor]) -> dict[str, Scaled]:
    """S = dR/du * u as scaled values, all of R's exponent, R that of open networks. Zero for a weight no path uses."""
    leaves = [weights[name] for name in net.masks]
    found: tuple[Tensor | None, ...] = (None,) * len(leaves)
    if total.mantissa.requires_grad:
        with repeatable(1):  # open networks are given a single input
            found = torch.autograd.grad(total.mantissa, leaves, allow_unused=True)
    return {
        name: Scaled(torch.zeros_like(leaf) if g is None else _product(g, leaf.detach()), total.exponent)
        for name, leaf, g in zip(net.masks, leaves, _apart(found), strict=True)
    }


def gathered_saliencies(
    net: Net, parts: Iterable[tuple[Scaled, int]], weights: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """S of a sum R, from its terms, each with the number of inputs it was made of; see :func:`plain` for its range.

    Each backward pass adds to the gradients of those before in their own memory, and then its graph is freed. Where
    torch adds up gradients so, no two leaves share memory.
    """
    leaves = [weights[name] for name in net.masks]
    scale: Scaled | None = None  # 1, at the exponent that the gradients have so far
    for total, number in parts:
        part_scale = Scaled(torch.ones_like(total.mantissa, requires_grad=False), total.exponent, 0.0)
        rescale, part_scale = align([scale or part_scale, part_scale])
        if scale is not None and rescale is not scale:
            for leaf in leaves:
                if leaf.grad is not None:
                    leaf.grad.mul_(rescale.mantissa)
        scale = Scaled(torch.ones_like(part_scale.mantissa), part_scale.exponent, 0.0)
        if total.mantissa.requires_grad:
            with repeatable(number):
                total.mantissa.backward(part_scale.mantissa, inputs=leaves)
    if scale is None:
        raise PxframeError("no data: 'batches' gave no (input, target) pair")
    scores = {}
    for name, leaf in zip(net.masks, leaves, strict=True):
        gradient, leaf.grad = leaf.grad, None
        found = torch.zeros_like(leaf) if gradient is None else _product(gradient, leaf.detach())
        scores[name] = Scaled(found.detach(), scale.exponent)
    return plain(scores)


def _apart(gradients: Sequence[Tensor | None]) -> list[Tensor | None]:
    """The gradients, copied where they lie in the memory of another, so that each may be written into.

    The summands of a weight get one gradient from torch, and what was joined to make one gets views of it.
    """
    seen: set[int] = set()
    apart: list[Tensor | None] = []
    for gradient in gradients:
        memory = 0 if gradient is None else gradient.untyped_storage().data_ptr()
        apart.append(gradient if gradient is None or memory not in seen else gradient.clone())
        seen.add(memory)
    return apart


def _product(gradient: Tensor, weight: Tensor) -> Tensor:
    return gradient.mul_(weight) if writable(gradient) else gradient * weight


def summed(parts: Iterable[Mapping[str, Scaled]]) -> dict[str, Tensor]:
    """The sum of scores, as tensors. ``parts`` may be a generator: no more than two parts are in memory at a time."""
    total: dict[str, Scaled] = {}
    for part in parts:
        for name, value in part.items():  # one by one, so that each sum takes the place of what it was made from
            total[name] = add([total[name], value]) if name in total else value
    if not total:
        raise PxframeError("no data: 'batches' gave no (input, target) pair")
    return plain(total)


def plain(scores: Mapping[str, Scaled]) -> dict[str, Tensor]:
    """Scores as tensors: exact, unless they would leave their dtype; then divided by one power of two for all.

    So the order of all weights is kept, and scores of shallow networks are the formula's own numbers. A float32 ends at
    2**128; scores end at 2**90, so that sums of them, such as a channel's, and their products with a layer's size fit.
    """
    aligned = align(list(scores.values()))
    ends = [end for value in aligned if value.mantissa.numel() for end in value.mantissa.aminmax()]
    exponent = _fitting(ends, aligned[0].exponent)
    half = exponent // 2  # 2**exponent itself may overflow
    first, second = (power_of_two(e, ends[0]) for e in (half, exponent - half))
    if isinstance(exponent, int) and abs(exponent) <= 120:
        factor = first * second
        return {name: value.mantissa * factor for name, value in zip(scores, aligned, strict=True)}
    return {name: (value.mantissa * first).mul_(second) for name, value in zip(scores, aligned, strict=True)}


def _fitting(ends: Sequence[Tensor], exponent: Exponent) -> Exponent:
    """The exponent of scores as :func:`plain` gives them, by their smallest and largest mantissas.

    On a CPU it is a number; a GPU does not wait for it.
    """
    if isinstance(exponent, int) and ends[0].device.type == "cpu":
        top = math.frexp(max(abs(float(end)) for end in ends))[1]
        fitting = min(90 - top, exponent)
        return fitting if fitting + top >= -60 else -top
    tops = torch.frexp(torch.stack(list(ends)).abs().amax()).exponent
    known = (90 - tops).clamp(max=exponent)
    return torch.where(known + tops < -60, -tops, known)
