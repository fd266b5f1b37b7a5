"""LogSynFlow: SynFlow with the logarithm of the gradient, so that huge gradients of deep networks do not dominate."""

import math
from dataclasses import dataclass

import torch

import pxframe
from pxframe.base.options import one_of
from pxframe.engine.interpret import interpret, ones_input
from pxframe.engine.reading import Reading, path_leaves
from pxframe.network.traces import FACTORS
from pxframe.scoring.paths import f_tensors
from pxframe.scoring.saliencies import contract


@dataclass
class LogSynFlow(pxframe.Scorer):
    """s = |theta| * log(1 + dR/d|theta|). R is the sum of outputs with weights |theta|, open gates and ones as input.

    Cavagnero, Robbiano, Caputo, Averta, "FreeREA: Training-Free Evolution-based Architecture Search", WACV 2023.
    R is that of SynFlow: there are no biases, BN scales by |gamma| / sqrt(var + eps), and max-pooling keeps the largest
    value.

    dR/d|theta| can be outside the range of every float dtype. It is therefore held as g * 2^e, and its logarithm is
    log g + e log 2. Paths are evaluated in float64 for every dtype of the model: a weight whose share of R is 2^-151
    would be zero in float32, but its logarithm has an influence on the score. Scores are float64, of each weight's
    shape.

    Args:
        factors: what the weights score that only make a factor, ``"shared"`` or ``"recorded"``, as for PX.
    """

    factors: str = "shared"

    name = "logsynflow"
    needs = "inputs"
    rounds = 100

    def __post_init__(self):
        one_of(self.name, "factors", self.factors, FACTORS)

    def score(self, net, batches):
        inputs = net.one(next(iter(batches))[0])
        doubles = {name: parameter.double() for name, parameter in net.parameters.items()}
        weights = path_leaves(doubles, net.masks, power=1)
        reading = Reading(weights, power=1, replay=False, pool="max")
        trace, start = net.trace(inputs, factors=self.factors), ones_input(inputs, torch.float64)
        run = interpret(trace, f_tensors(net), inputs, [(reading, start)])
        total = contract(run.paths[0])
        scores = {name: torch.zeros_like(weights[name]) for name in net.masks}
        if total.mantissa.requires_grad:
            found = torch.autograd.grad(total.mantissa, [weights[n] for n in scores], materialize_grads=True)
            for name, gradient in zip(scores, found, strict=True):
                scores[name] = weights[name].detach() * _log1p(gradient, total.exponent)
        return scores


def _log1p(mantissa, exponent):
    """log(1 + mantissa * 2^exponent). The power is not computed, and the CPU does not wait for the device.

    Some convolution algorithms round a zero gradient to a small negative number, so negative mantissas count as zero.
    """
    logarithm = torch.log(mantissa.clamp(min=0)) + torch.as_tensor(exponent).double() * math.log(2)  # -inf for zero
    return torch.logaddexp(torch.zeros_like(logarithm), logarithm)


@pxframe.hookimpl
def pxframe_register(register):
    register.scorer(LogSynFlow)
