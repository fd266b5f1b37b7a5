"""Iterative SNIP: SNIP a little at a time, each round on the network that the last one left."""

import pxframe
from pxframe_plugins.snip import Snip


class IterSnip(Snip):
    """s = |theta * dL/d(theta m)| at the current mask m, in many rounds; pruned weights stay pruned.

    De Jorge, Sanyal, Behl, Torr, Rogez, Dokania, "Progressive Skeletonization: Trimming more fat from a network at
    initialization", ICLR 2021, the procedure called progressive pruning.
    """

    name = "iter_snip"
    rounds = 100


@pxframe.hookimpl
def pxframe_register(register):
    register.scorer(IterSnip)
