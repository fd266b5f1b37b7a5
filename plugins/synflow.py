"""SynFlow: keeps the weights that carry synaptic flow from input to output."""

from dataclasses import dataclass
from typing import ClassVar

import pxframe
from pxframe.base.options import one_of
from pxframe.network.traces import FACTORS
from pxframe.scoring.paths import open_paths
from pxframe.scoring.saliencies import contract, saliencies


@dataclass
class SynFlow(pxframe.Scorer):
    """s = dR/d|theta| * |theta|, R the sum of outputs of the network with |theta|, fed ones, all gates open.

    Tanaka, Kunin, Yamins, Ganguli, "Pruning neural networks without any data by iteratively conserving synaptic
    flow", NeurIPS 2020, Eqs. 1 and 2. No biases; BN scales by |gamma| / sqrt(var + eps); max-pooling keeps the largest.

    Args:
        factors: what the weights score that only make a factor, ``"shared"`` or ``"recorded"``, as for PX.
    """

    factors: str = "shared"

    name = "synflow"
    needs = "inputs"
    rounds = 100
    #: The path network has |theta| to this power.
    power: ClassVar[int] = 1

    def __post_init__(self):
        one_of(self.name, "factors", self.factors, FACTORS)

    def score(self, net, batches):
        inputs, _ = next(iter(batches))
        values, weights = open_paths(net, inputs, power=self.power, pool="max", leaves=True, factors=self.factors)
        return saliencies(net, contract(values), weights)


@pxframe.hookimpl
def pxframe_register(register):
    register.scorer(SynFlow)
