"""Magnitude after training: the classical way, once."""

import pxframe
from pxframe_plugins.imp import IMP


class MagnitudeAfterTraining(IMP):
    """s = |theta after training| in one round: iterative magnitude pruning without the iteration.

    The ticket is of the initial weights, as all others are. Needs ``train=``, see :func:`pxframe.prune`.
    """

    name = "magnitude_after_training"
    rounds = 1


@pxframe.hookimpl
def pxframe_register(register):
    register.scorer(MagnitudeAfterTraining)
