"""GraSP (gradient signal preservation): keeps the weights whose removal would weaken the gradient flow."""

from dataclasses import dataclass

import torch

import pxframe
from pxframe.base.options import positive
from pxframe.engine.tracing.unfused import twice_differentiable
from pxframe.running.inputs import leaves, mapped
from pxframe.running.undisturbed import seeded


@dataclass
class GraSP(pxframe.Scorer):
    """s = theta * (H g), signed: g and H are gradient and Hessian of theta -> L(theta m), L summed over batches.

    Wang, Zhang, Grosse, "Picking Winning Tickets Before Training by Preserving Gradient Flow", ICLR 2020, Algorithms 1
    and 2: taking a weight to zero changes the gradient's squared norm by -2 s to first order; their score is -s, the
    highest removed. Pruned weights are no part of that norm and score 0. The paper scores ten images per class, once.

    Shape: the weight's. Two passes over the batches, the second for H g = sum of d<dL_b/dtheta, g>/dtheta with g
    constant, so that one batch's graph is in memory at a time, a few times that of a training step.

    Args:
        temperature: the network's output is divided by it before the loss (all floating tensors of it, where the output
            is a list or dict).
    """

    temperature: float = 200.0

    name = "grasp"
    needs = "labels"

    def __post_init__(self):
        positive("grasp", "temperature", self.temperature)

    def score(self, net, batches):
        # The data are read before anything is drawn, so that both passes meet the same random numbers.
        net, batches = self._tempered(net), list(batches)
        weights = net.masked()
        product = {name: torch.zeros_like(weight) for name, weight in weights.items()}
        seed = int(torch.randint(2**31, ()))  # of both passes: H and g are of one function, dropout or not
        with twice_differentiable():
            with seeded(seed, net.device):
                gradients = net.gradients(batches)
            gradients = {name: gradient * net.masks[name] for name, gradient in gradients.items()}
            with seeded(seed, net.device):
                for batch in batches:
                    for name, part in net.hessian_product(batch, weights, gradients).items():
                        product[name] += part
        return {name: weight * product[name] for name, weight in weights.items()}

    def _tempered(self, net):
        """The same net, its loss on outputs divided by the temperature."""
        return net.with_(loss=lambda output, target: net.loss(self._divided(output), target))

    def _divided(self, output):
        if not any(leaf.is_floating_point() for leaf in leaves(output)):
            raise pxframe.PxframeError(
                f"grasp: the model's output, a {type(output).__name__}, has no tensor to divide by the temperature"
            )
        return mapped(lambda leaf: leaf / self.temperature if leaf.is_floating_point() else leaf, output)


@pxframe.hookimpl
def pxframe_register(register):
    register.scorer(GraSP)
