"""LogSynFlow: SynFlow with the gradient's logarithm, so that deep networks' huge gradients do not decide alone."""

import math

import torch

import pxframe
from pxframe.engine.interpret import interpret, ones_input
from pxframe.engine.reading import Reading, path_weights
from pxframe.scoring.paths import contract, f_tensors


class LogSynFlow(pxframe.Scorer):
    """s = |theta| * log(1 + dR/d|theta|), R the sum of outputs of the network with |theta|, fed ones, gates open.

    Cavagnero, Robbiano, Caputo, Averta, "FreeREA: Training-Free Evolution-based Architecture Search", WACV 2023.
    R is SynFlow's: no biases; BN scales by |gamma| / sqrt(var + eps); max-pooling keeps the largest.

    dR/d|theta| may leave any float's range and comes as g * 2^e; its logarithm log g + e log 2 does not. Paths are
    evaluated in float64 whatever the model's dtype: a weight with 2^-151 of R, zero in float32 beside it, still has a
    logarithm that counts. Scores are float64.
    """

    name = "logsynflow"
    needs = "inputs"
    rounds = 100

    def score(self, net, batches):
        inputs = next(iter(batches))[0][:1]
        doubles = {name: parameter.double() for name, parameter in net.parameters.items()}
        weights = path_weights(doubles, net.masks, power=1, leaves=True)
        reading = Reading(weights, power=1, replay=False, pool="max")
        run = interpret(net.trace(inputs), f_tensors(net), inputs, [(reading, ones_input(inputs, torch.float64))])
        total = contract(run.paths[0])
        scores = {name: torch.zeros_like(weights[name]) for name in net.masks}
        if total.mantissa.requires_grad:
            found = torch.autograd.grad(total.mantissa, [weights[n] for n in scores], materialize_grads=True)
            for name, gradient in zip(scores, found, strict=True):
                scores[name] = weights[name].detach() * _log1p(gradient, total.exponent)
        return scores


def _log1p(mantissa, exponent):
    """log(1 + mantissa * 2^exponent) without forming the power, and without asking the device for a number.

    Some convolution algorithms round a zero gradient to a little below zero; there it is taken as zero.
    """
    logarithm = torch.log(mantissa.clamp(min=0)) + exponent.double() * math.log(2)  # -inf for zero
    return torch.logaddexp(torch.zeros_like(logarithm), logarithm)


@pxframe.hookimpl
def pxframe_register(register):
    register.scorer(LogSynFlow)
