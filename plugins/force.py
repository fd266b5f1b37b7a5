"""FORCE (foresight connection sensitivity): iterative SNIP in which pruned weights may return."""

import pxframe
from pxframe_plugins.snip import Snip


class Force(Snip):
    """s = |theta * dL/d(theta m)| at the current mask m, for all weights, and all of them are ranked in every round.

    De Jorge, Sanyal, Behl, Torr, Rogez, Dokania, "Progressive Skeletonization: Trimming more fat from a network at
    initialization", ICLR 2021, the procedure called progressive sparsification.
    """

    name = "force"
    rounds = 100
    revives = True


@pxframe.hookimpl
def pxframe_register(register):
    register.scorer(Force)
