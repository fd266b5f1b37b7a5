"""From scores to masks: exactly the number asked for, whatever the scores.

Tie rule: entries that score above the threshold are kept, and entries below it are pruned. Of the entries equal to it
as many are kept as are still missing, spread evenly over them in order of layers and positions, so that no layer is
favoured.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor


def global_masks(scores: Mapping[str, Tensor], candidates: Mapping[str, Tensor], keep: int) -> dict[str, Tensor]:
    """Keep the ``keep`` highest scores over all tensors together.

    Args:
        scores: float tensors by name, above minus infinity.
        candidates: bool tensors of the same shapes: what may be kept; at least ``keep`` of them true.
        keep: exact number of true entries in the result.

    Returns:
        bool masks by name.
    """
    # What may not be kept falls below every score; no count is read, so a GPU need not be waited for.
    flat = torch.cat([s.flatten().masked_fill(~candidates[n].flatten(), -torch.inf) for n, s in scores.items()])
    kept = highest(flat, keep).split([s.numel() for s in scores.values()])
    return {name: part.view(score.shape) for (name, score), part in zip(scores.items(), kept, strict=True)}


def layer_masks(
    scores: Mapping[str, Tensor], candidates: Mapping[str, Tensor], counts: Mapping[str, int]
) -> dict[str, Tensor]:
    """Keep the ``counts[name]`` highest scores of every tensor."""
    return {
        name: global_masks({name: score}, {name: candidates[name]}, counts[name])[name]
        for name, score in scores.items()
    }


def highest(values: Tensor, keep: int) -> Tensor:
    """Bool tensor, true at exactly ``keep`` of the highest of ``values`` (one dimension), ties by the rule above."""
    if keep >= values.numel():
        return torch.ones_like(values, dtype=torch.bool)
    if keep <= 0:
        return torch.zeros_like(values, dtype=torch.bool)
    return _on_cpu(values, keep) if values.device.type == "cpu" else _on_device(values, keep)


def _on_cpu(values: Tensor, keep: int) -> Tensor:
    # NumPy selects among millions several times faster than torch, but has no bfloat16.
    numbers = (values if values.dtype == torch.float64 else values.float()).detach().numpy()
    at = len(numbers) - keep
    threshold = np.partition(numbers, at)[at]
    kept = numbers > threshold
    missing = keep - int(np.count_nonzero(kept))
    tied = np.flatnonzero(numbers == threshold)
    # The ranks r with r * missing mod len(tied) < missing, listed: the k-th is k * len(tied) / missing, rounded up.
    kept[tied[-(-np.arange(missing) * len(tied) // missing)]] = True
    return torch.from_numpy(kept)


def _at(values: Tensor, keep: int) -> Tensor:
    """The ``keep``-th highest value. ``kthvalue`` would work on one of a GPU's processors alone, ``topk`` on all."""
    others = len(values) - keep + 1
    if keep <= others:
        return values.topk(keep, sorted=False).values.amin()
    return values.topk(others, largest=False, sorted=False).values.amax()


def _on_device(values: Tensor, keep: int) -> Tensor:
    """The same without reading anything back: the host does not wait for the device."""
    threshold = _at(values, keep)
    kept, tied = values > threshold, values == threshold
    missing = keep - kept.count_nonzero()
    ranks = tied.cumsum(0).sub_(1)
    return kept | (tied & (ranks.mul_(missing).remainder_(tied.count_nonzero()) < missing))
