"""Starting values for weights whose layer sums fewer inputs than it was initialised for."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pxframe.engine.paths import contract, open_paths, scaled_saliencies
from pxframe.errors import PxframeError
from pxframe.net import Net

Refit = Callable[[Net, Tensor | None], dict[str, Tensor] | None]


def fan_in(net: Net, inputs: Tensor) -> dict[str, Tensor]:
    """How many weights of each output channel lie on a path from input to output of the masked network.

    Returns:
        by name, a tensor ``[out]``; a weight counts when it is kept and its input carries something.
    """
    values, weights = open_paths(net, inputs, power=0, leaves=True)
    flows = scaled_saliencies(net, contract(values), weights)
    return {name: (flow.mantissa > 0).flatten(1).sum(1) for name, flow in flows.items()}


def keep(net: Net, inputs: Tensor | None) -> None:
    """The weights as they are."""
    return None


def rescale(net: Net, inputs: Tensor | None) -> dict[str, Tensor]:
    """theta * sqrt(fan in of the dense layer / fan in that is left): the variance of a sum stays what it was."""
    values = {}
    for name, live in fan_in(net, _given(inputs)).items():
        theta = net.weights[name]
        factor = (theta[0].numel() / live.clamp(min=1)).sqrt().to(theta.dtype)
        values[name] = theta * factor.where(live > 0, 1.0).view(-1, *[1] * (theta.ndim - 1))
    return values


def reinit(net: Net, inputs: Tensor | None) -> dict[str, Tensor]:
    """Drawn anew from N(0, 2 / fan in that is left) (He et al. 2015, Eq. 10)."""
    values = {}
    for name, live in fan_in(net, _given(inputs)).items():
        theta = net.weights[name]
        spread = (2 / live.clamp(min=1)).sqrt().to(theta.dtype).view(-1, *[1] * (theta.ndim - 1))
        drawn = torch.randn(theta.shape, generator=net.generator, dtype=theta.dtype).to(theta.device)
        values[name] = drawn * spread
    return values


REFITS: dict[str, Refit] = {"keep": keep, "rescale": rescale, "reinit": reinit}


def _given(inputs: Tensor | None) -> Tensor:
    if inputs is None:
        raise PxframeError("granularity 'channel': refit needs one batch, to follow the paths that are left")
    return inputs
