"""Whether two networks give the same."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pxframe.base.errors import PxframeError
from pxframe.running.inputs import arguments, leaves
from pxframe.running.undisturbed import undisturbed

#: How far outputs in float32 may be from those wanted, relative to the largest of these.
TOLERANCE = 1e-5


def outputs(model: nn.Module, batch: Any) -> list[Tensor]:
    """The tensors that a model gives for the inputs ``batch``, without gradients. The model is not changed.

    Raises:
        PxframeError: there is none, so that nothing could be compared.
    """
    args, kwargs = arguments(batch)
    with torch.no_grad(), undisturbed(model):
        output = model(*args, **kwargs)
        found = leaves(output)
    if not found:
        raise PxframeError(
            f"no tensor is seen in the model's output, of type {type(output).__name__}, so it cannot be compared: "
            f"return tensors, or tuples, lists, dicts or data classes of them, or take a part of the model"
        )
    return found


def apart(wanted: Sequence[Tensor], given: Sequence[Tensor]) -> float:
    """The largest difference of floating-point numbers, relative to the largest; infinite for other shapes or NaN."""
    if [x.shape for x in wanted] != [x.shape for x in given]:
        return math.inf
    pairs = [
        (x.double(), y.double()) for x, y in zip(wanted, given, strict=True) if x.is_floating_point() and x.numel()
    ]
    largest = max((float(x[x.isfinite()].abs().max()) for x, _ in pairs if x.isfinite().any()), default=0.0)
    worst = 0.0
    for x, y in pairs:
        furthest = float(torch.where(x == y, 0.0, (x - y).abs()).max())  # infinities may be equal
        if not math.isfinite(furthest):  # NaN would be less than nothing
            return math.inf
        worst = max(worst, furthest / (largest or 1.0))
    return worst


def difference(model: nn.Module, batches: Iterable[Any], wanted: Iterable[Sequence[Tensor]]) -> float:
    """:func:`apart` of a model's outputs and those wanted, the largest over all batches.

    Args:
        batches: inputs of the model.
        wanted: for each of them what :func:`outputs` gave for the other model.
    """
    return max(
        (apart(one, outputs(model, batch)) for batch, one in zip(batches, wanted, strict=True)),
        default=0.0,
    )
