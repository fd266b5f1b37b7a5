"""From scores to masks: exactly the number asked for, whatever the scores.

Tie rule: entries scoring above the threshold are kept, those below are not, and of those equal to it the missing
number is kept evenly spread over them in order of layers and positions, so that no layer is favoured.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

_SAMPLE = 1 << 15


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
    """Bool tensor, true at exactly ``keep`` of the highest of ``values`` (one dimension), ties by the rule above.

    On the CPU, where selection among millions takes a second, a sample first says between which two values the
    threshold lies, and only what lies between them is searched. On a GPU nothing is read back.
    """
    n = values.numel()
    if keep >= n:
        return torch.ones_like(values, dtype=torch.bool)
    if keep <= 0:
        return torch.zeros_like(values, dtype=torch.bool)
    if n < _SAMPLE or not _lists_places(values):
        return _exactly(values, keep)
    low, high = _bracket(values, keep)
    kept = values > high
    above = int(kept.count_nonzero())
    between = ((values >= low) & (values <= high)).nonzero().squeeze(1)
    if not above < keep <= above + len(between):
        return _exactly(values, keep)  # the sample misled, as it may on values that repeat in a pattern
    kept[between[_exactly(values[between], keep - above)]] = True
    return kept


def _bracket(values: Tensor, keep: int) -> tuple[Tensor, Tensor]:
    """Two values with the ``keep``-th highest between them, most likely: a sample's quantiles, 5 sigma to each side."""
    sample = values[:: len(values) // _SAMPLE].sort().values
    share = 1 - keep / len(values)
    margin = 5 * math.sqrt(len(sample) * share * (1 - share)) + 5
    at = len(sample) * share
    return sample[max(int(at - margin), 0)], sample[min(int(at + margin), len(sample) - 1)]


def _exactly(values: Tensor, keep: int) -> Tensor:
    threshold = torch.kthvalue(values, values.numel() - keep + 1).values
    kept, tied = values > threshold, values == threshold
    return kept | _spread(tied, keep - kept.count_nonzero(), _lists_places(values))


def _lists_places(values: Tensor) -> bool:
    """Whether listing the places of what is true costs little. On a GPU the host would wait for their number."""
    return not values.is_cuda


def _spread(tied: Tensor, missing: Tensor, listed: bool) -> Tensor:
    """Of n true entries of ``tied``, those of rank r with r * missing mod n < missing: ``missing`` of them, evenly.

    Unless their places are ``listed``, ranks cost a pass.
    """
    if not listed:
        return tied & ((tied.cumsum(0) - 1) * missing % tied.count_nonzero() < missing)
    places = tied.nonzero().squeeze(1)
    ranks = torch.arange(len(places), device=tied.device)
    spread = torch.zeros_like(tied)
    spread[places[ranks * missing % len(places) < missing]] = True
    return spread
