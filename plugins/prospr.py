"""ProsPr (prospect pruning): SNIP, but of the loss a few training steps later."""

from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice

import torch

import pxframe
from pxframe.base.options import one_of, positive, share, whole_number
from pxframe.base.undisturbed import seeded
from pxframe.engine.attention import math_attention
from pxframe_plugins.snip import Snip

ORDERS = ("full", "first")


@dataclass
class ProsPr(Snip):
    """s = |dL(w_M; D_M)/dm|, w_0 = m * theta, w_1 to w_M after steps of SGD on the batches D_0 to D_{M-1}.

    Alizadeh et al., "Prospect Pruning: Finding Trainable Weights at Initialization using Meta-Gradients", ICLR 2022,
    Eqs. 3 to 17. One step is v <- momentum * v + dL/dw, w <- w - lr * v, for all parameters, biases and norms too;
    weights that are pruned already stay out of it. Reads the first M + 1 batches, in their order (the paper: 512 images
    each). In training mode BN takes each batch's statistics.

    Shape: the weight's, or ``[weight.shape[0]]`` from ``score_channels`` (Sec. 4.3), signed until the sum is done.

    Args:
        steps: M.
        lr: of the steps; 0.1, as the default of the authors' program.
        momentum: of the steps.
        order: ``"full"`` goes back through the steps, which takes second derivatives: from the last to the first, each
            run anew from its stored weights. So memory is that of one step's graph (a few times that of a training
            step) and M copies of the parameters, not the M graphs of an unrolled loop. ``"first"`` takes dw_M/dw_0 as
            the identity, s = |theta * dL(w_M; D_M)/dw_M|: first derivatives only, memory as in training.
    """

    steps: int = 3
    lr: float = 0.1
    momentum: float = 0.0
    order: str = "full"

    name = "prospr"

    def __post_init__(self):
        whole_number("prospr", "steps", self.steps)
        positive("prospr", "lr", self.lr)
        share("prospr", "momentum", self.momentum)
        one_of("prospr", "order", self.order, ORDERS)

    def gradients(self, net, batches, values=None):
        """dL(w_M; D_M)/dw_0 of all parameters, by name, or what the first order takes for it."""
        *training, last = self._read(batches)
        with math_attention() if self.order == "full" else nullcontext():
            return self._through(net, training, last)

    def _read(self, batches):
        needed = self.steps + 1
        read = list(islice(batches, needed))
        if len(read) < needed:
            raise pxframe.PxframeError(
                f"prospr: {self.steps} steps need {needed} batches, one more for the loss after them; "
                f"'batches' gave {len(read)}"
            )
        return read

    def _through(self, net, training, last):
        seed = int(torch.randint(2**31, ()))  # of every step: its second run meets the same dropout
        weights = {**net.parameters, **net.masked()}
        velocity, path = dict.fromkeys(weights, 0.0), []
        for step, batch in enumerate(training):
            if self.order == "full":
                path.append((step, batch, weights))
            with seeded(seed + step, net.device):
                gradients = net.gradients([batch], weights)
            velocity = {n: self.momentum * velocity[n] + g for n, g in gradients.items()}
            weights = {n: w - velocity[n] * net.masks.get(n, 1) * self.lr for n, w in weights.items()}
        by_weight = net.gradients([last], weights)
        by_velocity = dict.fromkeys(weights, 0.0)
        for step, batch, weights in reversed(path):
            by_velocity = {
                n: self.momentum * by_velocity[n] - g * net.masks.get(n, 1) * self.lr for n, g in by_weight.items()
            }
            with seeded(seed + step, net.device):
                bent = net.hessian_product(batch, weights, by_velocity)
            by_weight = {n: g + bent[n] for n, g in by_weight.items()}
        return by_weight


@pxframe.hookimpl
def pxframe_register(register):
    register.scorer(ProsPr)
