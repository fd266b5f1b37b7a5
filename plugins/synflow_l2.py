"""SynFlow-L2: SynFlow on squared weights, the data-free half of the NTK's trace."""

import pxframe
from pxframe_plugins.synflow import SynFlow


class SynFlowL2(SynFlow):
    """s = dR/d(theta^2) * theta^2, R the sum of outputs of the network with theta^2, fed ones, all gates open.

    Gebhart, Saxena, Schrater, "A Unified Paths Perspective for Pruning at Initialization", 2021.
    No biases; BN scales by gamma^2 / (var + eps); max-pooling keeps the largest.
    """

    name = "synflow_l2"
    power = 2


@pxframe.hookimpl
def pxframe_register(register):
    register.scorer(SynFlowL2)
