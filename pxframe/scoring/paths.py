"""Quantities read off the engine's networks f, g and h: counts of active paths, and values of all paths.

Iurada, Ciccone, Tommasi, "Finding Lottery Tickets in Vision Models via Data-driven Spectral Foresight Pruning",
CVPR 2024. With v_p the product of the weights on path p and a_p its gates: f^k(x) = sum_p v_p a_p x_p;
g^k(x^2) = sum over active paths to k of x_p^2; h^k = sum over all paths to k of v_p^2.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, fx

from pxframe.base import ranks
from pxframe.base.errors import PxframeError
from pxframe.engine.folding import Norm, find_folds, hand_on
from pxframe.engine.graph import Trace
from pxframe.engine.interpret import interpret, ones_input, squared_input
from pxframe.engine.reading import Made, Reading, kept, path_weights
from pxframe.engine.rules.table import PRODUCTS, operation
from pxframe.engine.scaled import Exponent, Scaled, add
from pxframe.network.net import Net
from pxframe.network.traces import Factors
from pxframe.passes.batches import dealt
from pxframe.running.inputs import mapped, samples, signature
from pxframe.running.threads import repeatable
from pxframe.scoring.saliencies import contract

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
    totals: dict[Any, Counts] = {}
    variances: dict[str, Tensor] = {}
    read = 0
    # Batch after batch, whoever has counted it, as one process adds them up: the sums have the same bits.
    for number, counts, found in _counted(net, batches, batch_norm):
        size = signature(counts.inputs)
        if size in totals:
            pairs = zip(totals[size].values, counts.values, strict=True)
            counts = Counts(counts.inputs, [add(list(pair)) for pair in pairs])
        totals[size] = counts
        for name, variance in found.items():
            variances[name] = variances.get(name, 0) + variance * number
        read += number
    if not totals:
        raise PxframeError("no data: 'batches' gave no (input, target) pair")
    return list(totals.values()), {name: variance / read for name, variance in variances.items()}


def _counted(
    net: Net, batches: Iterable[tuple[Any, Any]], batch_norm: str
) -> Iterator[tuple[int, Counts, dict[str, Tensor]]]:
    """For every batch: how many samples it has, their counts, and f's batch variances by buffer name."""
    tensors = f_tensors(net)
    turns, shared = dealt(batches)
    with torch.no_grad():
        weights = path_weights(net.parameters, net.masks, power=0)
        reading = Reading(weights, power=0, replay=True, ones=frozenset(weights.keys() - net.masks.keys()))
        for _, batch, count in turns:
            if batch is None:
                yield from _exchanged(None, count, net.device)
                continue
            inputs, _ = batch
            start = squared_input(inputs, net.path_dtype)
            run = interpret(net.trace(inputs), tensors, inputs, [(reading, start)], batch_norm=batch_norm)
            number, one = samples(inputs), net.one(inputs)
            check_outputs(net, run.outputs, number)
            bits = math.log2(number)
            values = [value.map(lambda m: m.sum(0, keepdim=True), bits) for value in run.paths[0]]
            found = (number, Counts(one, values), run.variances)
            yield from _exchanged(found, count, net.device) if shared else [found]


def _exchanged(found: Any, count: int, device: torch.device) -> list[Any]:
    """What the first ``count`` ranks found; tensors travel by way of the CPU, and are small."""
    everyone = ranks.gathered_objects(mapped(Tensor.cpu, found))
    return [mapped(lambda t: t.to(device), one) for one in everyone[:count]]


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
    fold: bool = True,
) -> tuple[list[Scaled], dict[str, Tensor]]:
    """h^k: the values of all paths to every output, from a single input of ones; evaluated on one input only.

    Args:
        inputs: any batch; only its shape, dtype and device matter.
        power: 1: a path's value is the product of its weights' magnitudes; 2: of their squares.
        leaves: the returned weights require gradients.
        factors: ``"shared"``: the weights that make a factor share its score (see
            :mod:`pxframe.engine.factors.sharing`).
        fold: batch norms may be a part of the weights in front of them. False: the weights are |theta|**power.

    Returns:
        one value per output tensor, ``[1, ...]``, and the weights they were computed from, as :func:`mantissas` gives
        them.
    """
    one = net.one(inputs)
    start = ones_input(one, net.path_dtype)
    trace = net.trace(one, factors=factors)
    folds, handed = _folds(net, trace, fold and not variances)
    weights, exponents = mantissas(net, power, leaves, dict(folds.values()))
    scales = {} if variances else net.cache.setdefault(("scales", power), {})
    reading = Reading(weights, power, False, pool, variances, exponents=exponents, scales=scales, handed=handed)
    run = interpret(trace, f_tensors(net), one, [(reading, start)])
    return run.paths[0], weights


def _folds(net: Net, trace: Trace, fold: bool) -> tuple[dict[fx.Node, tuple[str, Norm]], dict[fx.Node, fx.Node]]:
    """The batch norms to fold, if any are to be, and the nodes that then only hand on what they are given."""
    key = "folds", fold
    if key not in trace.tables:
        folds = find_folds(trace, net.masks) if fold else {}
        trace.tables[key] = folds, hand_on(trace, folds)
    return trace.tables[key]


def mantissas(
    net: Net, power: int, leaves: bool = False, norms: Mapping[str, Norm] = MappingProxyType({})
) -> tuple[dict[str, Tensor], dict[str, Exponent]]:
    """Weights as ``path_weights`` gives them, the prunable ones divided by a power of two each: to at most 1.

    The powers are those of the unmasked weights, found in the first round. S = dR/du * u does not depend on them.

    Args:
        norms: by weight, a batch norm to fold into it.

    Returns:
        weights by name (with ``leaves`` the prunable ones require gradients), and exponents of the prunable ones.
    """
    key = ("mantissas", power, frozenset(norms.items()))
    if key not in net.cache:
        dense = dict(path_weights(net.parameters, {}, power))
        tensors = {**net.buffers, **net.parameters}
        exponents = {}
        for name in net.masks:
            weight = norms[name].folded(dense[name], tensors, power) if name in norms else dense[name]
            scaled = Scaled.of(weight)
            dense[name], exponents[name] = scaled.mantissa.to(dense[name].dtype), scaled.exponent
        net.cache[key] = dense, exponents
    dense, exponents = net.cache[key]
    left = {name: kept(mask, dense[name].dtype).mul_(dense[name]) for name, mask in net.masks.items()}
    masked = {name: weight.requires_grad_(leaves) for name, weight in left.items()}
    return dense | masked, exponents


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
    values, weights = open_paths(net, inputs, 2, leaves=True, fold=False)
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
