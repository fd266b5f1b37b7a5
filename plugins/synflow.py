"""SynFlow: keeps the weights that carry synaptic flow from input to output."""

import pxframe
from pxframe.scoring.paths import contract, open_paths, saliencies


class SynFlow(pxframe.Scorer):
    """s = dR/d|theta| * |theta|, R the sum of outputs of the network with |theta|, fed ones, all gates open.

    Tanaka, Kunin, Yamins, Ganguli, "Pruning neural networks without any data by iteratively conserving synaptic
    flow", NeurIPS 2020, Eqs. 1 and 2. No biases; BN scales by |gamma| / sqrt(var + eps); max-pooling keeps the largest.
    """

    name = "synflow"
    needs = "inputs"
    rounds = 100
    #: The path network has |theta| to this power.
    power = 1

    def score(self, net, batches):
        inputs, _ = next(iter(batches))
        values, weights = open_paths(net, inputs, power=self.power, pool="max", leaves=True)
        return saliencies(net, contract(values), weights)


@pxframe.hookimpl
def pxframe_register(register):
    register.scorer(SynFlow)
