"""From scores to masks: exactly the number asked for, whatever the scores.

Tie rule: entries that score above the threshold are kept, and entries below it are pruned. Of the entries equal to it
as many are kept as are still missing, spread evenly over them in order of layers and positions, so that no layer is
favoured.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import gcd
from typing import Any

import numpy as np
import torch
from torch import Tensor

#: About so many scores tell where the threshold is to be looked for.
_SAMPLE = 1 << 17


def global_masks(scores: Mapping[str, Tensor], candidates: Mapping[str, Tensor], keep: int) -> dict[str, Tensor]:
    """Keep the ``keep`` highest scores over all tensors together.

    Args:
        scores: float tensors by name, above minus infinity.
        candidates: bool tensors of the same shapes: what may be kept; at least ``keep`` of them true.
        keep: exact number of true entries in the result.

    Returns:
        bool masks by name.
    """
    if keep <= 0:
        return {name: torch.zeros_like(candidates[name]) for name in scores}
    choose = _on_cpu if all(score.device.type == "cpu" for score in scores.values()) else _on_device
    kept = choose([s.detach().flatten() for s in scores.values()], [candidates[n].flatten() for n in scores], keep)
    return {name: part.view(score.shape) for (name, score), part in zip(scores.items(), kept, strict=True)}


def layer_masks(
    scores: Mapping[str, Tensor], candidates: Mapping[str, Tensor], counts: Mapping[str, int]
) -> dict[str, Tensor]:
    """Keep the ``counts[name]`` highest scores of every tensor."""
    return {
        name: global_masks({name: score}, {name: candidates[name]}, counts[name])[name]
        for name, score in scores.items()
    }


def row_masks(
    scores: Mapping[str, Tensor], candidates: Mapping[str, Tensor], counts: Mapping[str, int]
) -> dict[str, Tensor]:
    """Keep ``counts[name]`` scores of every tensor: the highest of each row, of all rows as many up to one.

    A row is what makes one output: an entry of the first dimension. The rows that keep one more are those whose next
    score is the highest. A row with fewer candidates keeps them all, and others keep more.
    """
    return {name: _rows(score, candidates[name], counts[name]) for name, score in scores.items()}


def _rows(score: Tensor, allowed: Tensor, keep: int) -> Tensor:
    """Of equal scores the first is kept."""
    values = score.detach().flatten(1).double().masked_fill(~allowed.flatten(1), -torch.inf)
    ranks = values.argsort(dim=1, descending=True, stable=True).argsort(dim=1)  # in its row
    ranks = ranks.masked_fill(~allowed.flatten(1), values.numel()).flatten()
    by_score = values.flatten().argsort(descending=True, stable=True)
    by_rank = by_score[ranks[by_score].argsort(stable=True)]
    kept = torch.zeros_like(allowed).flatten()
    kept[by_rank[:keep]] = True
    return kept.view(score.shape)


def counts(masks: Sequence[Tensor | np.ndarray]) -> list[int]:
    """How many entries of each bool array are true; one question to a GPU. On a CPU NumPy counts much faster."""
    on_device = [mask for mask in masks if isinstance(mask, Tensor) and mask.device.type != "cpu"]
    if on_device:
        return torch.stack([mask.count_nonzero() for mask in on_device]).tolist()
    return [int(np.count_nonzero(mask)) for mask in masks]


def reaches(masks: Iterable[Tensor | np.ndarray], number: int) -> bool:
    """Whether so many entries of the bool arrays are true. On a CPU the later ones are not made if the first do."""
    masks, found = iter(masks), 0
    for mask in masks:
        if isinstance(mask, Tensor):
            return sum(counts([mask, *masks])) >= number
        found += int(np.count_nonzero(mask))
        if found >= number:
            return True
    return found >= number


def comparable(tensors: Iterable[Tensor]) -> list[Any]:
    """The tensors, none of which requires a gradient; on a CPU as arrays: NumPy compares several times as fast."""
    tensors = list(tensors)
    if any(tensor.device.type != "cpu" for tensor in tensors):
        return tensors
    return [(tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy() for tensor in tensors]


def _on_cpu(scores: Sequence[Tensor], candidates: Sequence[Tensor], keep: int) -> list[Tensor]:
    """A sample tells between which two scores the threshold lies; only what is between them has to be ordered.

    Most of the time is spent on moving memory, so nothing of the size of all scores is made but the masks.
    """
    dtype = torch.float64 if any(s.dtype == torch.float64 for s in scores) else torch.float32
    values, allowed = comparable(score.to(dtype) for score in scores), comparable(candidates)
    for low, high in (_bracket(values, allowed, keep), (-np.inf, np.inf)):  # a sample may mislead
        kept = [(v > high) & a for v, a in zip(values, allowed, strict=True)]
        between = [np.flatnonzero(((v >= low) & a) ^ k) for v, a, k in zip(values, allowed, kept, strict=True)]
        missing = keep - sum(int(np.count_nonzero(k)) for k in kept)
        if 0 <= missing <= sum(map(len, between)):
            break
    chosen = _highest(np.concatenate([v[at] for v, at in zip(values, between, strict=True)]), missing)
    ends = np.cumsum([len(at) for at in between])
    for part, at, found in zip(kept, between, np.split(chosen, ends[:-1]), strict=True):
        part[at[found]] = True
    return [torch.from_numpy(part) for part in kept]


def _bracket(values: Sequence[np.ndarray], allowed: Sequence[np.ndarray], keep: int) -> tuple[float, float]:
    total = sum(map(len, values))
    if total < 2 * _SAMPLE:
        return -np.inf, np.inf
    step = total // _SAMPLE
    while gcd(step, 2 * 3 * 5 * 7) > 1:  # else it might meet the same place of every kernel
        step += 1
    sample = np.concatenate([v[::step][a[::step]] for v, a in zip(values, allowed, strict=True)])
    at = len(sample) * (1 - keep / sum(int(np.count_nonzero(a)) for a in allowed))
    margin = 4 * len(sample) ** 0.5  # eight standard deviations of the rank in a random sample
    ranks = [min(max(int(at + side), 0), len(sample) - 1) for side in (-margin, margin)]
    low, high = np.partition(sample, ranks)[ranks]
    return (low if at > margin else -np.inf), (high if at + margin < len(sample) else np.inf)


def _highest(values: np.ndarray, keep: int) -> np.ndarray:
    """True at exactly ``keep`` of the highest of ``values``, ties by the rule above."""
    if keep == 0:
        return np.zeros(len(values), dtype=bool)
    at = len(values) - keep
    threshold = np.partition(values, at)[at]
    kept = values > threshold
    missing = keep - int(np.count_nonzero(kept))
    tied = np.flatnonzero(values == threshold)
    # The ranks r with r * missing mod len(tied) < missing, listed: the k-th is k * len(tied) / missing, rounded up.
    kept[tied[-(-np.arange(missing) * len(tied) // missing)]] = True
    return kept


def _at(values: Tensor, keep: int) -> Tensor:
    """The ``keep``-th highest value. ``kthvalue`` would work on one of a GPU's processors alone, ``topk`` on all."""
    others = len(values) - keep + 1
    if keep <= others:
        return values.topk(keep, sorted=False).values.amin()
    return values.topk(others, largest=False, sorted=False).values.amax()


def _on_device(scores: Sequence[Tensor], candidates: Sequence[Tensor], keep: int) -> list[Tensor]:
    """The same without reading anything back: the host does not wait for the device."""
    # What may not be kept falls below every score.
    values = torch.cat([s.masked_fill(~c, -torch.inf) for s, c in zip(scores, candidates, strict=True)])
    threshold = _at(values, keep)
    above, tied = values > threshold, values == threshold
    missing = keep - above.count_nonzero()
    ranks = tied.cumsum(0).sub_(1)
    kept = above | (tied & (ranks.mul_(missing).remainder_(tied.count_nonzero()) < missing))
    return list(kept.split([score.numel() for score in scores]))
