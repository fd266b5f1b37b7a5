"""PHEW: keeps the weights on random walks from input to output that prefer large weights."""

import torch

import pxframe
from pxframe.scoring.paths import f_tensors
from pxframe_plugins.phew.graph import read_units
from pxframe_plugins.phew.walk import Walks

#: Number of walks that are made at once. Half of them go in reverse.
BATCH = 8192
#: Walking stops after PATIENCE batches in a row that each find fewer than one new weight per RARE walks.
RARE, PATIENCE = 20, 4
#: The time of a weight that no walk has passed.
NEVER = torch.iinfo(torch.long).max


class Phew(pxframe.Scorer):
    """Makes random walks until they have passed as many different weights as the round keeps.

    The earlier a walk passes a weight, the higher is the weight's score.

    Patil, Dovrolis, "PHEW: Constructing Sparse Networks that Learn Fast and Generalize Well without Training Data",
    ICML 2021. Walks go forward and in reverse in turn: the first starts at an input unit (a channel), the second at an
    output unit. The unit is drawn uniformly. From unit i a walk passes weight w_ji, or one element of kernel j, i, with
    probability |w_ji| / sum over j of |w_ji|; in reverse with |w_ij| / sum over j of |w_ij|. When a channel is
    flattened, its features stay one unit. Walks never pass pruned weights. Biases and norms have no influence.

    The paper leaves some cases open. They are settled as follows:

    * Where several layers read an activation, a walk takes each of them with the same probability. In reverse, it takes
      each summand of an addition with the same probability. It never takes a way that leads to no output (no input).
    * A walk does not enter a part of the network that only computes a factor from the data (squeeze-excite, the queries
      and keys of attention).
    * If the last walk passes more new weights than are missing, the ones it passes first are kept.
    * When walks find hardly any new weights, the weights with the largest |theta| fill the rest. Their scores are below
      those of all weights that were passed.
    * Weights are counted over all layers together.

    Scores are float64, of each weight's shape.
    """

    name = "phew"
    needs = "inputs"

    def score(self, net, batches):
        if net.density is None:
            raise pxframe.PxframeError("phew: it walks until a density is reached; use pxframe.prune")
        inputs = net.one(next(iter(batches))[0])
        weights = {name: theta.cpu() for name, theta in {**net.parameters, **net.masked()}.items()}
        for name in net.weights:
            if not torch.isfinite(weights[name]).all():
                raise pxframe.PxframeError(
                    f"phew: weights of layer {name!r} are not finite; load them again, or draw new ones"
                )
        walks = Walks(read_units(net.trace(inputs), f_tensors(net)), weights)
        firsts, end = _first_passed(net, walks)
        top = float(torch.stack([weight.abs().max() for weight in net.weights.values()]).max()) or 1.0
        scores = {}
        for name, weight in net.weights.items():
            early = (end - firsts[name]).double()  # at least 1; float64 holds it exactly
            score = torch.where(firsts[name] == NEVER, weights[name].abs().double() / (2 * top), early)
            scores[name] = score.view(weight.shape).to(weight.device)
        return scores


def _first_passed(net, walks):
    """Walk, and note when each weight was passed for the first time.

    Returns:
        for each prunable weight, by name, an int64 tensor of its shape: the time of the first walk over it, or
        :data:`NEVER`; and the time at which walking ended, above all others.
    """
    firsts = {name: torch.full(weight.shape, NEVER) for name, weight in net.weights.items()}
    wanted = round(net.density * sum(weight.numel() for weight in net.weights.values()))
    walked = found = fruitless = 0
    while walks.possible and found < wanted and fruitless < PATIENCE:
        new = 0
        for reverse in (0, 1):
            for step, which, _, name, places in walks.walk(BATCH // 2, not reverse, net.generator):
                if name in firsts:
                    first = firsts[name].view(-1)
                    new += places[first[places] == NEVER].unique().numel()
                    when = (walked + 2 * which + reverse) * walks.length + step
                    first.scatter_reduce_(0, places, when, "amin")
        walked, found = walked + BATCH, found + new
        fruitless = fruitless + 1 if new * RARE < BATCH else 0
    return firsts, walked * walks.length


@pxframe.hookimpl
def pxframe_register(register):
    register.scorer(Phew)
