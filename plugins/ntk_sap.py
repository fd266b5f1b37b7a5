"""NTK-SAP: keeps the weights whose removal would change the trace of the Neural Tangent Kernel the most."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

import pxframe
from pxframe.base.devices import sent
from pxframe.base.options import positive, whole_number
from pxframe.running.inputs import dtype_of, leaves, mapped


@dataclass
class NTKSAP(pxframe.Scorer):
    """s = |dL/dm|, L = sum over draws and samples of ||f(z; theta * m) - f(z; (theta + eps * Delta) * m)||^2.

    Wang, Li, Sun, "NTK-SAP: Improving Neural Network Pruning by Aligning Training Dynamics", ICLR 2023. Over Delta,
    L / eps^2 is on average ||d f(z; theta * m) / d theta||_F^2, the trace of the NTK, up to O(eps).

    z ~ N(0, 1) has the shape ``[N, C, ...]`` of the first input batch; of several inputs, every one of floating-point
    numbers is drawn. Nothing else of the batches is read but inputs of integers.
    Delta ~ N(0, 1) has the shapes of the prunable weights; all samples of a draw share one Delta. In both passes, BN
    normalises by the statistics of its batch, and everything else is in eval mode. All floating-point outputs of the
    model count. Every round draws new numbers. They are drawn on the CPU, so that a seed gives the same ticket on every
    device. Scores have the shape and dtype of their weight.

    Args:
        eps: size of the perturbation, above 0.
        draws: R, the number of draws of z and Delta (and of theta, see ``redraw``), at least 1.
        redraw: True draws the prunable weights theta anew for every draw (Kaiming normal, fan in), as the paper does at
            random initialisation. False uses the model's own theta, which suits pre-trained weights.

    Raises:
        PxframeError: an option is out of its range, the inputs are not floating-point numbers, or no floating-point
            output depends on a prunable weight.
    """

    eps: float = 0.01
    draws: int = 1
    redraw: bool = False

    name = "ntk_sap"
    needs = "inputs"
    rounds = 100

    def __post_init__(self):
        positive("ntk_sap", "eps", self.eps)
        whole_number("ntk_sap", "draws", self.draws)
        if not isinstance(self.redraw, bool):
            raise pxframe.PxframeError(f"ntk_sap: 'redraw' must be True or False, got {self.redraw!r}")

    def score(self, net, batches):
        inputs, _ = next(iter(batches))
        if not dtype_of(inputs).is_floating_point:
            raise pxframe.PxframeError(
                f"ntk_sap: inputs of {dtype_of(inputs)} cannot be drawn from a normal distribution"
            )
        total = {name: torch.zeros_like(weight) for name, weight in net.weights.items()}
        for _ in range(self.draws):
            z = mapped(lambda x: _normal(x, net.generator) if x.is_floating_point() else x, inputs)
            theta = {n: _kaiming(w, net.generator) if self.redraw else w for n, w in net.weights.items()}
            moved = {n: w + self.eps * _normal(w, net.generator) for n, w in theta.items()}
            for name, gradient in _gradients(net, z, theta, moved).items():
                total[name] += gradient
        return {name: gradient.abs() for name, gradient in total.items()}


def _gradients(net, z, theta, moved):
    """dL/dm of one draw, by name. It is zero for a weight that no output depends on."""
    masks = {name: mask.to(theta[name].dtype).requires_grad_() for name, mask in net.masks.items()}
    with net.evaluating(), _BatchStatistics():
        pair = [_outputs(net, z, {n: w * masks[n] for n, w in weights.items()}) for weights in (theta, moved)]
    distance = torch.stack([(a - b).square().sum() for a, b in zip(*pair, strict=True)]).sum()
    found = torch.autograd.grad(distance, list(masks.values()), allow_unused=True, materialize_grads=True)
    return dict(zip(masks, found, strict=True))


def _outputs(net, z, weights):
    floating = [leaf for leaf in leaves(net(z, weights)) if leaf.is_floating_point()]
    if not any(leaf.requires_grad for leaf in floating):
        raise pxframe.PxframeError("ntk_sap: no floating-point output of the model depends on its prunable weights")
    return floating


class _BatchStatistics(TorchFunctionMode):
    """BN normalises by the statistics of its batch, in both modes of its module. Running statistics are not read."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is F.batch_norm:
            args, kwargs = (args[0], None, None, *args[3:]), {**kwargs, "training": True}
        return func(*args, **kwargs)


def _normal(like, generator):
    return sent(torch.randn(like.shape, generator=generator, dtype=like.dtype), like.device)


def _kaiming(like, generator):
    drawn = torch.empty(like.shape, dtype=like.dtype)
    return sent(nn.init.kaiming_normal_(drawn, generator=generator), like.device)


@pxframe.hookimpl
def pxframe_register(register):
    register.scorer(NTKSAP)
