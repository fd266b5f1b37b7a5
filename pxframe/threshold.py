"""From scores to masks: exactly the number asked for, whatever the scores.

Tie rule: weights scoring above the threshold are kept, those below are not, and of those equal to it the missing
number is kept evenly spread over them in order of layers and positions, so that no layer is favoured.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def global_masks(scores: Mapping[str, Tensor], candidates: Mapping[str, Tensor], keep: int) -> dict[str, Tensor]:
    """Keep the ``keep`` highest scores over all tensors together.

    Args:
        scores: finite float tensors by name.
        candidates: bool tensors of the same shapes: what may be kept; at least ``keep`` of them true.
        keep: exact number of true entries in the result.

    Returns:
        bool masks by name.
    """
    eligible = [candidates[name].flatten() for name in scores]
    flat = torch.cat([s.flatten()[e] for s, e in zip(scores.values(), eligible, strict=True)])
    kept = highest(flat, keep).split([int(e.sum()) for e in eligible])
    masks = {}
    for (name, score), part, where in zip(scores.items(), kept, eligible, strict=True):
        mask = torch.zeros_like(where)
        mask[where] = part
        masks[name] = mask.view(score.shape)
    return masks


def layer_masks(scores: Mapping[str, Tensor], candidates: Mapping[str, Tensor], keep: int) -> dict[str, Tensor]:
    """Keep the same share of every tensor; shares are rounded so that the total is exactly ``keep``."""
    counts = apportion([s.numel() for s in scores.values()], keep)
    return {
        name: global_masks({name: score}, {name: candidates[name]}, count)[name]
        for (name, score), count in zip(scores.items(), counts, strict=True)
    }


SCOPES = {"global": global_masks, "layer": layer_masks}


def highest(values: Tensor, keep: int) -> Tensor:
    """Bool tensor, true at exactly ``keep`` of the highest of ``values`` (one dimension), ties by the rule above."""
    if keep >= values.numel():
        return torch.ones_like(values, dtype=torch.bool)
    if keep <= 0:
        return torch.zeros_like(values, dtype=torch.bool)
    threshold = torch.kthvalue(values, values.numel() - keep + 1).values
    kept = values > threshold
    tied = (values == threshold).nonzero().squeeze(1)
    missing = keep - int(kept.sum())
    spread = torch.arange(missing, device=values.device) * tied.numel() // max(missing, 1)
    kept[tied[spread]] = True
    return kept


def apportion(sizes: list[int], keep: int) -> list[int]:
    """Split ``keep`` in proportion to ``sizes`` into whole numbers that add up to it (largest remainders)."""
    total = sum(sizes)
    counts = [keep * size // total for size in sizes]
    by_remainder = sorted(range(len(sizes)), key=lambda i: (-(keep * sizes[i] % total), i))
    for index in by_remainder[: keep - sum(counts)]:
        counts[index] += 1
    return counts
