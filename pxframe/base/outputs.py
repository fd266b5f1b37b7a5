"""Whether two networks give the same."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from pxframe.base.inputs import arguments, leaves
from pxframe.base.undisturbed import undisturbed

#: How far outputs in float32 may be from those wanted, relative to the largest of these.
TOLERANCE = 1e-5


def outputs(model: nn.Module, batch: Any) -> list[torch.Tensor]:
    """The floating-point tensors that a model gives for the inputs ``batch``, float64. The model is not changed."""
    args, kwargs = arguments(batch)
    with torch.no_grad(), undisturbed(model):
        return [x.double() for x in leaves(model(*args, **kwargs)) if x.is_floating_point()]


def difference(model: nn.Module, batches: Iterable[Any], wanted: Iterable[list[torch.Tensor]]) -> float:
    """The largest difference of a model's outputs from those wanted, relative to the largest of these.

    Args:
        batches: inputs of the model.
        wanted: for each of them what :func:`outputs` gave for the other model.

    Returns:
        infinity if shapes differ, or for NaN.
    """
    worst = 0.0
    for batch, one in zip(batches, wanted, strict=True):
        other = outputs(model, batch)
        if [x.shape for x in one] != [x.shape for x in other]:
            return float("inf")
        largest = max((float(x.abs().max()) for x in one if x.numel()), default=0.0)
        for x, y in zip(one, other, strict=True):
            furthest = float((x - y).abs().max()) if x.numel() else 0.0
            if not math.isfinite(furthest):  # NaN would be less than nothing
                return float("inf")
            worst = max(worst, furthest / (largest or 1.0))
    return worst
