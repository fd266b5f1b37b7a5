"""Starting values for weights whose layer sums fewer inputs than it was initialised for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pxframe.engine.interpret import interpret, ones_input
from pxframe.engine.reading import Reading, path_leaves
from pxframe.engine.scaled import Exponent, Scaled, power_of_two
from pxframe.network.net import Net
from pxframe.running.undisturbed import stream
from pxframe.scoring.paths import f_tensors


def fan_in(net: Net, inputs: Any) -> dict[str, Tensor]:
    """Count, for each output channel, the weights that lie on a path from the input to an output of the network.

    A weight lies on a path when it is kept, its input is reached from the network's input, and its output reaches an
    output of the network. Reached or not is all that is followed, forwards and backwards, so depth does not matter.
    Paths lead through queries, keys and other layers that make a factor, too (see
    :mod:`pxframe.engine.factors.sharing`).

    Args:
        inputs: any batch; only its shape, dtype and device matter.

    Returns:
        by name, an int64 tensor ``[out]``.
    """
    one = net.one(inputs)
    weights = path_leaves(net.parameters, net.masks, power=0)
    reading = Reading(weights, power=0, replay=False, after=_reached)
    with torch.enable_grad():
        trace, start = net.trace(one, factors="shared"), ones_input(one, net.path_dtype)
        run = interpret(trace, f_tensors(net), one, [(reading, start)])
        total = torch.stack([value.mantissa.sum() for value in run.paths[0]]).sum()
    leaves = [weights[name] for name in net.masks]
    found: tuple[Tensor | None, ...] = (None,) * len(leaves)
    if total.requires_grad:
        found = torch.autograd.grad(total, leaves, allow_unused=True)
    counts = {}
    for name, leaf, gradient in zip(net.masks, leaves, found, strict=True):
        # A whole number: in how many places the weight joins a reached input with an output that is of use.
        places = torch.zeros_like(leaf) if gradient is None else gradient * leaf.detach()
        counts[name] = (places > 0.5).flatten(1).sum(1)
    return counts


def _reached(value: Scaled) -> Scaled:
    """1 where anything of a path value arrives, else 0."""
    return Scaled(_Reached.apply(value.mantissa, value.exponent), 0, 0.0)


class _Reached(torch.autograd.Function):
    """Forwards 1 where the value is above zero, backwards 1 where the gradient is.

    The exact values are whole numbers, so a threshold of 0.5 removes the rounding noise of fast convolutions. Exact
    gradients that are not zero are at least 0.5, as a factor and what it multiplies have one half each.
    """

    @staticmethod
    def forward(ctx: Any, mantissa: Tensor, exponent: Exponent) -> Tensor:
        ctx.exponent = exponent
        return (mantissa * power_of_two(exponent, mantissa) > 0.5).to(mantissa.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = gradients
        return (gradient > 0.25).to(gradient.dtype) * power_of_two(ctx.exponent, gradient), None


def rescale(net: Net, inputs: Any, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """theta * sqrt(fan-in of the dense layer / fan-in that is left), so that the variance of a sum stays the same."""
    before = fan_in(net.with_(masks={name: torch.ones_like(mask) for name, mask in net.masks.items()}), inputs)
    after = fan_in(net, inputs)
    values = {}
    for name, theta in weights.items():
        factor = (before[name] / after[name].clamp(min=1)).sqrt().where(after[name] > 0, 1.0)
        values[name] = theta * factor.to(theta.dtype).view(-1, *[1] * (theta.ndim - 1))
    return values


def reinit(net: Net, inputs: Any, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Draw the weights anew from N(0, 2 / fan-in that is left) (He et al. 2015, Eq. 10), from a stream of their own."""
    left = fan_in(net, inputs)
    # What no path leads through, such as the offsets of a deformable convolution, sums all that is kept of it.
    left = {n: count.where(count > 0, net.masks[n].flatten(1).sum(1)) for n, count in left.items()}
    generator = stream(net.generator.initial_seed(), "reinit")
    values = {}
    for name, theta in weights.items():
        spread = (2 / left[name].clamp(min=1)).sqrt().to(theta.dtype).view(-1, *[1] * (theta.ndim - 1))
        values[name] = torch.randn(theta.shape, generator=generator, dtype=theta.dtype).to(theta.device) * spread
    return values
