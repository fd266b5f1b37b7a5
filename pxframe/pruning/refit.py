"""Starting values for weights whose layer sums fewer inputs than it was initialised for."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from pxframe.base.errors import PxframeError
from pxframe.scoring.net import Net
from pxframe.scoring.paths import contract, open_paths, scaled_saliencies

Refit = Callable[[Net, Tensor | None, Mapping[str, Tensor]], dict[str, Tensor]]


def fan_in(net: Net, inputs: Tensor) -> dict[str, Tensor]:
    """How many weights of each output channel lie on a path from input to output of the masked network.

    Returns:
        by name, a tensor ``[out]``; a weight counts when it is kept and its input carries something.
    """
    values, weights = open_paths(net, inputs, power=0, leaves=True)
    flows = scaled_saliencies(net, contract(values), weights)
    # Some convolution algorithms give noise where there should be zeros.
    return {n: (f.mantissa > 1e-6 * f.mantissa.amax()).flatten(1).sum(1) for n, f in flows.items()}


def keep(net: Net, inputs: Tensor | None, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights as they are."""
    return {}


def rescale(net: Net, inputs: Tensor | None, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """theta * sqrt(fan in of the dense layer / fan in that is left): the variance of a sum stays what it was."""
    inputs = _given(inputs)
    whole = copy.copy(net)
    whole.masks = {name: torch.ones_like(mask) for name, mask in net.masks.items()}
    before, after = fan_in(whole, inputs), fan_in(net, inputs)
    values = {}
    for name, theta in weights.items():
        factor = (before[name] / after[name].clamp(min=1)).sqrt().where(after[name] > 0, 1.0)
        values[name] = theta * factor.to(theta.dtype).view(-1, *[1] * (theta.ndim - 1))
    return values


def reinit(net: Net, inputs: Tensor | None, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Drawn anew from N(0, 2 / fan in that is left) (He et al. 2015, Eq. 10)."""
    left = fan_in(net, _given(inputs))
    values = {}
    for name, theta in weights.items():
        spread = (2 / left[name].clamp(min=1)).sqrt().to(theta.dtype).view(-1, *[1] * (theta.ndim - 1))
        drawn = torch.randn(theta.shape, generator=net.generator, dtype=theta.dtype).to(theta.device)
        values[name] = drawn * spread
    return values


REFITS: dict[str, Refit] = {"keep": keep, "rescale": rescale, "reinit": reinit}


def _given(inputs: Tensor | None) -> Tensor:
    if inputs is None:
        raise PxframeError("granularity 'channel': refit needs one batch, to follow the paths that are left")
    return inputs
