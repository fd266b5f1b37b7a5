"""Iterative magnitude pruning: train, prune a share, rewind to the initialisation, repeat."""

import pxframe


class IMP(pxframe.Scorer):
    """s = |theta after training| of the network masked so far; each round starts from the initialisation again.

    Frankle, Carbin, "The Lottery Ticket Hypothesis", ICLR 2019, section 2 (iterative pruning with resetting). The
    default of 18 rounds prunes a fifth of what is left in each on the way to 98.2 %. Needs ``train=``, see
    :func:`pxframe.prune`; costs a whole training a round.
    """

    name = "imp"
    needs = "training"
    rounds = 18

    def score(self, net, batches):
        trained = net.trained()
        return {name: trained[name].abs() for name in net.weights}


@pxframe.hookimpl
def pxframe_register(register):
    register.scorer(IMP)
