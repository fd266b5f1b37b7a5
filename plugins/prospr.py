"""ProsPr (prospect pruning): SNIP's score for the loss after a few training steps."""

from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice

import torch

import pxframe
from pxframe.base.options import one_of, positive, share, whole_number
from pxframe.engine.tracing.unfused import twice_differentiable
from pxframe.running.undisturbed import seeded
from pxframe_plugins.snip import Snip

ORDERS = ("full", "first")


@dataclass
class ProsPr(Snip):
    """s = |dL(w_M; D_M)/dm| with w_0 = m * theta. M steps of SGD on the batches D_0 to D_{M-1} give w_1 to w_M.

    Alizadeh et al., "Prospect Pruning: Finding Trainable Weights at Initialization using Meta-Gradients", ICLR 2022,
    Eqs. 3 to 17. One step is v <- momentum * v + dL/dw, w <- w - lr * v, for all parameters, also those of biases and
    norms. Weights that an earlier round has pruned are not changed. The scorer reads the first M + 1 batches in their
    order (512 images each in the paper). In training mode, BN uses the statistics of each batch.

    Scores have the shape of their weight. Those of ``score_channels`` (Sec. 4.3) have the shape ``[weight.shape[0]]``;
    the magnitude is taken after the sum over a channel. In ``score_groups`` one mask entry multiplies all channels that
    go together, and the magnitude is taken after the sum over their layers.

    Args:
        steps: M, the number of steps, at least 1.
        lr: learning rate of the steps, above 0. The default, 0.1, is that of the authors' program.
        momentum: momentum of the steps, in [0, 1).
        order: ``"full"`` differentiates through the steps, which needs second derivatives. It goes from the last step
            to the first and runs each again from its stored weights. So it needs memory for the graph of one step (a
            few times that of a training step) and for M copies of the parameters, and not for the graphs of all M
            steps. ``"first"`` takes the identity for dw_M/dw_0, so s = |theta * dL(w_M; D_M)/dw_M|. It needs first
            derivatives only, and as much memory as training.

    Raises:
        PxframeError: an option is out of its range, or there are fewer than M + 1 batches.
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
        """dL(w_M; D_M)/dw_0 of all parameters, by name; with ``order="first"``, dL(w_M; D_M)/dw_M in its place."""
        *training, last = self._read(batches)
        with twice_differentiable() if self.order == "full" else nullcontext():
            return self._through(net, training, last)

    def _read(self, batches):
        needed = self.steps + 1
        read = list(islice(batches, needed))
        if len(read) < needed:
            raise pxframe.PxframeError(
                f"prospr: {self.steps} steps need {needed} batches, one for each step and one for the loss after them; "
                f"'batches' gave {len(read)}"
            )
        return read

    def _through(self, net, training, last):
        seed = int(torch.randint(2**31, ()))  # so that dropout is the same when a step is run again
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
