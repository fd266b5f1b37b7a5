"""Quantities read off the engine's networks f, g and h: counts of active paths, values of all paths, saliencies.

Iurada, Ciccone, Tommasi, "Finding Lottery Tickets in Vision Models via Data-driven Spectral Foresight Pruning",
CVPR 2024. With v_p the product of the weights on path p and a_p its gates: f^k(x) = sum_p v_p a_p x_p;
g^k(x^2) = sum over active paths to k of x_p^2; h^k = sum over all paths to k of v_p^2.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from pxframe.base.errors import PxframeError
from pxframe.base.inputs import dtype_of, samples, signature
from pxframe.base.threads import repeatable
from pxframe.engine.interpret import interpret, ones_input, squared_input
from pxframe.engine.reading import Made, Reading, kept, path_dtype, path_weights
from pxframe.engine.rules.table import PRODUCTS, operation
from pxframe.engine.scaled import Exponent, Scaled, add, align, power_of_two, writable
from pxframe.scoring.net import Factors, Net

Pool = Literal["sum", "max"]


class Counts(NamedTuple):
    """The path counts c_k of all samples of one size."""

    #: One of those samples, ``[1, ...]``: its shape and dtype tell which h belongs to the counts.
    inputs: Any
    #: c_k, one value per output tensor of the model, of its shape with a batch of one.
    values: list[Scaled]


def active_paths(
    net: Net, batches: Iterable[tuple[Any, Any]], *, batch_norm: str = "running"
) -> tuple[list[Counts], dict[str, Tensor]]:
    """c_k = sum_n g^k(x_n^2), and (``batch_norm="batch"``) f's mean batch variances. f and g run together.

    Samples of different sizes have different h, and their outputs may be maps of different sizes, so they are counted
    apart.

    Returns:
        the counts for each size of the samples, in the order the sizes first appear; variances by buffer name.

    Raises:
        PxframeError: no data, an output that is not finite, or an operation the engine does not know.
    """
    tensors = f_tensors(net)
    totals: dict[Any, Counts] = {}
    variances: dict[str, Tensor] = {}
    read = 0
    with torch.no_grad():
        weights = path_weights(net.parameters, net.masks, power=0)
        reading = Reading(weights, power=0, replay=True, ones=frozenset(weights.keys() - net.masks.keys()))
        for inputs, _ in batches:
            start = squared_input(inputs, path_dtype(dtype_of(inputs)))
            run = interpret(net.trace(inputs), tensors, inputs, [(reading, start)], batch_norm=batch_norm)
            number, one = samples(inputs), net.one(inputs)
            check_outputs(net, run.outputs, number)
            bits = math.log2(number)
            values = [value.map(lambda m: m.sum(0, keepdim=True), bits) for value in run.paths[0]]
            size = signature(one)
            if size in totals:
                earlier = totals[size].values
                values = [add([one, other]) for one, other in zip(earlier, values, strict=True)]
            totals[size] = Counts(one, values)
            for name, variance in run.variances.items():
                variances[name] = variances.get(name, 0) + variance * number
            read += number
    if not totals:
        raise PxframeError("no data: 'batches' gave no (input, target) pair")
    return list(totals.values()), {name: variance / read for name, variance in variances.items()}


def at_once(net: Net, inputs: Any, factors: Factors = "recorded") -> int:
    """How many samples of a batch to take through a backward pass at once: it then holds what a forward pass does.

    The one keeps the input of every convolution or matrix product and the gates between them, the other two values at
    a time.
    """
    trace = net.trace(net.one(inputs), factors=factors)
    sizes = [math.prod(node.meta["val"].shape) for node in trace.paths if operation(node) in PRODUCTS]
    return max(1, 2 * samples(inputs) * max(sizes, default=1) // sum(sizes, start=1))


def open_paths(
    net: Net,
    inputs: Any,
    power: int,
    *,
    pool: Pool = "sum",
    variances: Mapping[str, Tensor] | None = None,
    leaves: bool = False,
    factors: Factors = "recorded",
) -> tuple[list[Scaled], dict[str, Tensor]]:
    """h^k: the values of all paths to every output, from a single input of ones; evaluated on one input only.

    Args:
        inputs: any batch; only its shape, dtype and device matter.
        power: 1: a path's value is the product of its weights' magnitudes; 2: of their squares.
        leaves: the returned weights require gradients.
        factors: ``"shared"``: the weights that make a factor share its score (see :mod:`pxframe.engine.sharing`).

    Returns:
        one value per output tensor, ``[1, ...]``, and the weights they were computed from, as :func:`mantissas` gives
        them.
    """
    one = net.one(inputs)
    start = ones_input(one, path_dtype(dtype_of(one)))
    weights, exponents = mantissas(net, power, leaves)
    scales = {} if variances else net.cache.setdefault(("scales", power), {})
    reading = Reading(weights, power, False, pool, variances=variances, exponents=exponents, scales=scales)
    run = interpret(net.trace(one, factors=factors), f_tensors(net), one, [(reading, start)])
    return run.paths[0], weights


def mantissas(net: Net, power: int, leaves: bool = False) -> tuple[dict[str, Tensor], dict[str, Exponent]]:
    """Weights as ``path_weights`` gives them, the prunable ones divided by a power of two each: to at most 1.

    The powers are those of the unmasked weights, found in the first round. S = dR/du * u does not depend on them.

    Returns:
        weights by name (with ``leaves`` the prunable ones require gradients), and exponents of the prunable ones.
    """
    key = ("mantissas", power)
    if key not in net.cache:
        dense = dict(path_weights(net.parameters, {}, power))
        scaled = {name: Scaled.of(dense[name]) for name in net.masks}
        net.cache[key] = dense | {n: s.mantissa for n, s in scaled.items()}, {n: s.exponent for n, s in scaled.items()}
    dense, exponents = net.cache[key]
    left = {name: dense[name] * kept(mask, dense[name].dtype) for name, mask in net.masks.items()}
    masked = {name: weight.requires_grad_(leaves) for name, weight in left.items()}
    return dense | masked, exponents


def contract(values: list[Scaled], factors: list[Scaled] | None = None) -> Scaled:
    """R = sum_k c_k h^k over all outputs; without ``factors``, sum_k h^k. A value without dimensions."""
    terms = []
    for index, value in enumerate(values):
        value = value.measured()
        if factors is None:
            terms.append(Scaled(value.mantissa.sum(), value.exponent))
        else:
            factor = factors[index].measured()
            terms.append(Scaled((value.mantissa * factor.mantissa).sum(), value.exponent + factor.exponent))
    return add(terms)


def saliencies(net: Net, total: Scaled, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """S = dR/du * u for the prunable weights, u as they stand in the path network; see :func:`plain` for its range."""
    return plain(scaled_saliencies(net, total, weights))


def scaled_saliencies(net: Net, total: Scaled, weights: Mapping[str, Tensor], samples: int = 1) -> dict[str, Scaled]:
    """S = dR/du * u as scaled values, all of R's exponent. Zero for a weight no path uses.

    Args:
        samples: how many inputs the path networks of R were given; 1 for open networks.
    """
    leaves = [weights[name] for name in net.masks]
    found: tuple[Tensor | None, ...] = (None,) * len(leaves)
    if total.mantissa.requires_grad:
        with repeatable(samples):
            found = torch.autograd.grad(total.mantissa, leaves, allow_unused=True)
    return {
        name: Scaled(torch.zeros_like(leaf) if g is None else _product(g, leaf.detach()), total.exponent)
        for name, leaf, g in zip(net.masks, leaves, found, strict=True)
    }


def gathered_saliencies(
    net: Net, parts: Iterable[tuple[Scaled, int]], weights: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """S of a sum R, from its terms, each with the number of inputs it was made of; see :func:`plain` for its range.

    Each backward pass adds to the gradients of those before in their own memory, and then its graph is freed.
    """
    leaves = [weights[name] for name in net.masks]
    sofar: Scaled | None = None  # 1, at the exponent that the gradients have so far
    for total, number in parts:
        now = Scaled(torch.ones_like(total.mantissa, requires_grad=False), total.exponent, 0.0)
        before, now = align([sofar or now, now])
        if sofar is not None and before is not sofar:
            for leaf in leaves:
                if leaf.grad is not None:
                    leaf.grad.mul_(before.mantissa)
        sofar = Scaled(torch.ones_like(now.mantissa), now.exponent, 0.0)
        if total.mantissa.requires_grad:
            with repeatable(number):
                total.mantissa.backward(now.mantissa, inputs=leaves)
    if sofar is None:
        raise PxframeError("no data: 'batches' gave no (input, target) pair")
    scores = {}
    for name, leaf in zip(net.masks, leaves, strict=True):
        gradient, leaf.grad = leaf.grad, None
        found = torch.zeros_like(leaf) if gradient is None else _product(gradient, leaf.detach())
        scores[name] = Scaled(found.detach(), sofar.exponent)
    return plain(scores)


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

    So the order of all weights is kept, and scores of shallow networks are the formula's own numbers.
    """
    aligned = align(list(scores.values()))
    ends = torch.stack([end for s in aligned if s.mantissa.numel() for end in s.mantissa.aminmax()])
    top = torch.frexp(ends.abs().amax()).exponent
    exponent = (120 - top).clamp(max=aligned[0].exponent)
    exponent = torch.where(exponent + top < -60, -top, exponent)
    half = exponent // 2  # 2**exponent itself may overflow
    first, second = (power_of_two(e, ends) for e in (half, exponent - half))
    return {name: (value.mantissa * first).mul_(second) for name, value in zip(scores, aligned, strict=True)}


def jacobian_norms(net: Net, batches: Iterable[tuple[Any, Any]]) -> tuple[Scaled, Scaled]:
    """The two norms whose product bounds the trace of the NTK (Section 3.2 of the paper), for samples of one size.

    ||J_v^f||_F^2 = sum_n sum_k g^k(x_n^2) and ||J_theta^v||_F^2 = sum_k sum_j dh^k/d(theta_j^2).

    Returns:
        two values without dimensions. ``float()`` gives the number, ``.log2()`` its logarithm: the norms of ResNet-152
        do not fit a double.
    """
    counts, _ = active_paths(net, batches)
    if len(counts) > 1:
        raise PxframeError(f"the batches have samples of {len(counts)} sizes; measure one size at a time")
    [(inputs, by_output)] = counts
    values, weights = open_paths(net, inputs, 2, leaves=True)
    total, exponents = contract(values), mantissas(net, 2)[1]
    with repeatable(1):
        found = torch.autograd.grad(total.mantissa, [weights[name] for name in net.masks], allow_unused=True)
    # The derivative by a pruned weight's square exists, but the weight is not in the network.
    kept = [
        Scaled((g * net.masks[name]).double().sum(), total.exponent - exponents[name])
        for name, g in zip(net.masks, found, strict=True)
        if g is not None
    ]
    return contract(by_output), add(kept)


def f_tensors(net: Net) -> Mapping[str, Tensor]:
    """Parameters and buffers as f uses them: the model's own, prunable weights masked."""
    own = {**net.buffers, **net.parameters}

    def make(name: str) -> Tensor:
        return own[name] * kept(net.masks[name], own[name].dtype) if name in net.masks else own[name]

    return Made(own, make)


def check_outputs(net: Net, outputs: list[Tensor], batch: int) -> None:
    """Outputs of f that path-based scorers can use: a batch of finite values (required after the round)."""
    for output in outputs:
        if output.ndim == 0 or len(output) != batch:
            raise PxframeError(
                f"an output of the model has shape {tuple(output.shape)} on a batch of {batch}; "
                f"path-based scorers need the batch as its first dimension"
            )
        finite = torch.isfinite(output.abs().amax())  # amax hands on NaN
        net.require(
            finite,
            "the model's output on the scoring data is not finite (NaN or infinity); "
            "look for such or very large numbers in its weights and in the batches",
        )
