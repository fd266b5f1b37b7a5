"""PHEW: keeps the weights that random walks from input to output, biased to large weights, come by."""

import torch

import pxframe
from pxframe.scoring.paths import f_tensors
from pxframe_plugins.phew.graph import read_units
from pxframe_plugins.phew.walk import Walks

#: Walks made at once, half of them in reverse.
BATCH = 8192
#: Walking stops after PATIENCE batches in a row that each find fewer than one new weight per RARE walks.
RARE, PATIENCE = 20, 4
NEVER = torch.iinfo(torch.long).max


class Phew(pxframe.Scorer):
    """Walks until as many different weights are passed as the round is to keep; s is higher the earlier a weight was.

    Patil, Dovrolis, "PHEW: Constructing Sparse Networks that Learn Fast and Generalize Well without Training Data",
    ICML 2021. The first walk starts at an input unit (a channel) drawn uniformly, the second at an output unit and goes
    in reverse, and so on in turn. From unit i a walk passes weight w_ji, or one element of kernel j, i, with
    probability |w_ji| / sum over j of |w_ji|; in reverse with |w_ij| / sum over j of |w_ij|. Features of one channel,
    flattened, are one unit. Pruned weights are never passed. Biases and norms play no part.

    Left open by the paper: a walk takes each way at a fork between consumers with the same probability, and in reverse
    each summand of an addition; ways that lead nowhere are not taken; what only forms a factor from the data (squeeze-
    excite, the queries and keys of attention) is not walked. Of the last walk, as many weights are kept as are missing.
    Where walks hardly find new weights any more, the rest is filled with the largest |theta|, below all that were
    passed. The count is over all layers together.
    """

    name = "phew"
    needs = "inputs"

    def score(self, net, batches):
        if net.density is None:
            raise pxframe.PxframeError("phew: PHEW walks until a density is reached; use pxframe.prune")
        inputs = next(iter(batches))[0][:1]
        weights = {name: theta.cpu() for name, theta in {**net.parameters, **net.masked()}.items()}
        for name in net.weights:
            if not torch.isfinite(weights[name]).all():
                raise pxframe.PxframeError(
                    f"phew: weights of layer {name!r} are not finite; load them again, or draw new ones"
                )
        walks = Walks(read_units(net.trace(inputs), f_tensors(net)), weights)
        firsts, end = _first_passed(net, walks)
        top = max(float(weight.abs().max()) for weight in net.weights.values()) or 1.0
        scores = {}
        for name, weight in net.weights.items():
            early = (end - firsts[name]).double()  # 1 at least, exact
            score = torch.where(firsts[name] == NEVER, weights[name].abs().double() / (2 * top), early)
            scores[name] = score.view(weight.shape).to(weight.device)
        return scores


def _first_passed(net, walks):
    """When each weight was passed first, a tensor of its shape, :data:`NEVER` if it was not; and the end."""
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
