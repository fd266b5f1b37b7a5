"""PX (Path eXclusion): keeps the weights that carry the trace of the Neural Tangent Kernel."""

from dataclasses import dataclass

import pxframe
from pxframe.base.options import one_of
from pxframe.engine.interpret import interpret, squared_input
from pxframe.engine.reading import Reading
from pxframe.network.traces import FACTORS
from pxframe.running.inputs import samples, split
from pxframe.scoring.paths import (
    active_paths,
    at_once,
    check_outputs,
    f_tensors,
    mantissas,
    open_paths,
)
from pxframe.scoring.saliencies import contract, gathered_saliencies, scaled_saliencies, summed
from pxframe_plugins.px.official import official_scores

VARIANTS = ("paper", "calibrated", "joint", "joint_calibrated", "official")


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
            * ``"official"``: what the authors' published program computes (:mod:`pxframe_plugins.px.official`). It is
              not Eq. 9: batch norms run in training mode in g and h, gamma, beta and the classifier keep their signs,
              and the score is the magnitude of a derivative that may be negative. No conservation law holds. Networks
              of ReLUs only. In most ResNets the scores of all convolutions are rounding errors, and a warning says so.

        factors: what the weights score that only make a factor: queries and keys, squeeze-excite, gates.
            ``"shared"``: half of the score of the paths that the factor multiplies
            (:mod:`pxframe.engine.factors.sharing`). ``"recorded"``: 0. Default: ``"shared"``. The official variant
            knows no factors and takes ``"recorded"``.
    """

    variant: str = "paper"
    factors: str | None = None

    name = "px"
    needs = "inputs"
    rounds = 100

    def __post_init__(self):
        one_of(self.name, "variant", self.variant, VARIANTS)
        official = self.variant == "official"
        self.factors = self.factors or ("recorded" if official else "shared")
        one_of(self.name, "factors", self.factors, ("recorded",) if official else FACTORS)

    def score(self, net, batches):
        batch_norm = "batch" if self.variant.endswith("calibrated") else "running"
        if self.variant.startswith("joint"):
            return _joint(net, batches, batch_norm, self.factors)
        if self.variant == "official":
            return official_scores(net, batches)
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


@pxframe.hookimpl
def pxframe_register(register):
    register.scorer(PX, default=True)
