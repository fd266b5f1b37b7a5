"""Lottery tickets with late rewinding: train, prune a share, rewind to an early step, repeat."""

from dataclasses import dataclass

import pxframe
from pxframe.base.options import whole_number
from pxframe_plugins.imp import IMP


@dataclass
class LTR(IMP):
    """s = |theta after training| of the network masked so far; each round starts from the weights of an early step.

    Frankle, Dziugaite, Roy, Carbin, "Linear Mode Connectivity and the Lottery Ticket Hypothesis", ICML 2020, Alg. 1.
    The network is trained to ``step`` once, dense; the rounds, and whoever trains the ticket, start from there: the
    ticket holds those values (:meth:`pxframe.Ticket.rewind`). Needs ``train=``, see :func:`pxframe.prune`.

    Args:
        step: optimizer step to rewind to; 0 is :class:`pxframe_plugins.imp.IMP`.
    """

    step: int = 500

    name = "ltr"

    def __post_init__(self):
        whole_number("ltr", "step", self.step, least=0)

    def score(self, net, batches):
        trained = net.trained(self._early(net), start=self.step)
        return {name: trained[name].abs() for name in net.weights}

    def restart(self, net):
        return self._early(net)

    def _early(self, net):
        """The state at ``step``, trained at the masks of the first round."""
        if self.step and "early" not in net.memory:
            net.memory["early"] = net.trained(stop=self.step)
        return net.memory.get("early")


@pxframe.hookimpl
def pxframe_register(register):
    register.scorer(LTR)
