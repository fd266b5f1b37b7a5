"""PX (Path eXclusion): keeps the weights that carry the trace of the Neural Tangent Kernel."""

from dataclasses import dataclass

import torch

import pxframe
from pxframe.base.inputs import samples, split, starting_tensors
from pxframe.base.options import one_of
from pxframe.engine.interpret import interpret, ones_input, squared_input
from pxframe.engine.reading import Reading, path_weights
from pxframe.engine.scaled import Scaled
from pxframe.scoring.net import FACTORS
from pxframe.scoring.paths import (
    active_paths,
    at_once,
    check_outputs,
    f_tensors,
    mantissas,
    open_paths,
)
from pxframe.scoring.saliencies import contract, gathered_saliencies, scaled_saliencies, summed

VARIANTS = ("paper", "calibrated", "joint", "joint_calibrated", "release1", "release2")


@dataclass
class PX(pxframe.Scorer):
    """s = dR/d(theta^2) * theta^2 with R = sum_n sum_k g^k(x_n^2) h^k (Eq. 9).

    Iurada, Ciccone, Tommasi, "Finding Lottery Tickets in Vision Models via Data-driven Spectral Foresight Pruning",
    CVPR 2024. f runs in eval mode. Labels are not read. Scores have the shape of their weight; they are float64 for a
    float64 model, and float32 for others.

    Args:
        variant: how the method is read; ``docs/which-px.md`` compares the variants.

            * ``"paper"``: Eq. 9. h does not depend on the data, so R = sum_k c_k h^k with c_k = sum_n g^k(x_n^2).
            * ``"calibrated"``: as ``"paper"``, but BN is scaled by the variance of f's batches of scoring data instead
              of the running variance. Training will normalise by such batch statistics.
            * ``"joint"``: the bound before the product is split, Q = sum_n sum_k sum_p v_p^2 a_p^2 x_p^2. Here the data
              has an influence on each path. ``"joint_calibrated"``: the same, with BN as in ``"calibrated"``.
            * ``"release1"``, ``"release2"``: close to the authors' two releases, which ran BN in training mode inside g
              and h. The first feeds the batch to g and to h, and multiplies the score once more by theta^2. The second
              feeds x^2 to g and ones to h, does not square parameters with ``bn`` or ``fc`` in their name, and takes
              the magnitude of the gradient. These scores need not be positive, and no conservation law holds for them.

        factors: what the weights score that only make a factor: queries and keys, squeeze-excite, gates.
            ``"shared"``: half of the score of the paths that the factor multiplies (:mod:`pxframe.engine.sharing`).
            ``"recorded"``: 0. The releases record factors; the default of the other variants is ``"shared"``.
    """

    variant: str = "paper"
    factors: str | None = None

    name = "px"
    needs = "inputs"
    rounds = 100

    def __post_init__(self):
        one_of(self.name, "variant", self.variant, VARIANTS)
        released = self.variant.startswith("release")
        self.factors = self.factors or ("recorded" if released else "shared")
        one_of(self.name, "factors", self.factors, ("recorded",) if released else FACTORS)

    def score(self, net, batches):
        batch_norm = "batch" if self.variant.endswith("calibrated") else "running"
        if self.variant.startswith("joint"):
            return _joint(net, batches, batch_norm, self.factors)
        if self.variant.startswith("release"):
            return _release(net, batches, first=self.variant == "release1")
        counts, variances = active_paths(net, batches, batch_norm=batch_norm)
        return _split(net, counts, variances, self.factors)


def _split(net, counts, variances, factors):
    """Scores by Eq. 9, from the counts c_k and the variances of BN that :func:`active_paths` gives.

    If ``variances`` is empty, BN uses its running variances. R is a sum over the sizes of the samples, so h is
    evaluated once for each size.
    """

    def part(inputs, values):
        opened, weights = open_paths(net, inputs, 2, variances=variances, leaves=True, factors=factors)
        return scaled_saliencies(net, contract(opened, values), weights)

    return summed(part(inputs, values) for inputs, values in counts)


def _joint(net, batches, batch_norm, factors):
    """Squared path values with the gates of f, summed over samples and outputs."""
    variances = active_paths(net, batches, batch_norm=batch_norm)[1] if batch_norm == "batch" else None
    weights, exponents = mantissas(net, power=2, leaves=True)
    reading = Reading(weights, power=2, replay=True, variances=variances, exponents=exponents)

    def part(inputs):
        start = squared_input(inputs, net.path_dtype)
        trace = net.trace(inputs, factors=factors)
        run = interpret(trace, f_tensors(net), inputs, [(reading, start)], batch_norm=batch_norm)
        check_outputs(net, run.outputs, samples(inputs))
        return contract(run.paths[0]), samples(inputs)

    def parts():
        for inputs, _ in batches:
            # Batch statistics need the whole batch; everything else is a sum over samples.
            for some in split(inputs, at_once(net, inputs, factors) if batch_norm == "running" else samples(inputs)):
                yield part(some)

    return gathered_saliencies(net, parts(), weights)


def _release(net, batches, first):
    """Scores of the releases. BN normalises by the batch statistics of g and h themselves: values may be negative."""
    ones = path_weights(net.parameters, net.masks, power=0)
    weights = dict(path_weights(net.parameters, net.masks, power=2))
    if not first:
        plain_ones = {n: theta for n, theta in {**net.parameters, **net.masked()}.items() if "bn" in n or "fc" in n}
        weights |= {n: theta.to(weights[n].dtype) for n, theta in plain_ones.items()}
    weights |= {n: weights[n].requires_grad_() for n in net.masks}
    g = Reading(ones, power=0, replay=True, norm="batch")
    h = Reading(weights, power=2, replay=False, norm="batch")

    def part(inputs):
        batch = [Scaled.of(x.to(net.path_dtype)) for x in starting_tensors(inputs)]
        squares = squared_input(inputs, net.path_dtype)
        with torch.no_grad():
            counts = interpret(net.trace(inputs), f_tensors(net), inputs, [(g, batch if first else squares)]).paths[0]
        if first:
            values = interpret(net.trace(inputs), f_tensors(net), inputs, [(h, batch)]).paths[0]
        else:
            counts = [Scaled(c.mantissa.sum(0, keepdim=True), c.exponent) for c in counts]
            one = net.one(inputs)
            values = interpret(net.trace(one), f_tensors(net), one, [(h, ones_input(one, net.path_dtype))]).paths[0]
        scores = scaled_saliencies(net, contract(values, counts), weights, samples(inputs) if first else 1)
        last = (lambda s, u: s * u) if first else (lambda s, u: s.abs())
        return {n: Scaled(last(s.mantissa, weights[n].detach()), s.exponent) for n, s in scores.items()}

    return summed(part(inputs) for inputs, _ in batches)


@pxframe.hookimpl
def pxframe_register(register):
    register.scorer(PX, default=True)
