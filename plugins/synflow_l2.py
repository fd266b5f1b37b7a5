"""SynFlow-L2: SynFlow on squared weights, the data-free half of the NTK's trace."""

import pxframe
from pxframe.scoring.paths import contract, open_paths, saliencies


class SynFlowL2(pxframe.Scorer):
    """s = dR/d(theta^2) * theta^2, R the sum of outputs of the network with theta^2, fed ones, all gates open.

    Gebhart, Saxena, Schrater, "A Unified Paths Perspective for Pruning at Initialization", 2021.
    No biases; BN scales by gamma^2 / (var + eps); max-pooling keeps the largest.
    """

    name = "synflow_l2"
    needs = "inputs"
    rounds = 100

    def score(self, net, batches):
        inputs, _ = next(iter(batches))
        values, weights = open_paths(net, inputs, power=2, pool="max", leaves=True)
        return saliencies(net, contract(values), weights)


@pxframe.hookimpl
def pxframe_register(register):
    register.scorer(SynFlowL2)
