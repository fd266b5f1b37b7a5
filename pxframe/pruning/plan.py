"""What is kept after each round: sparsity, schedule, scope, distribution and granularity put together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor

from pxframe.base.errors import PxframeError, near
from pxframe.pruning.granularity import Granularity
from pxframe.pruning.threshold import global_masks, layer_masks

SCOPES = ("global", "layer")

# --- the density after each round ---

Schedule = Callable[[float, int, int], float]


def exponential(density: float, round: int, rounds: int) -> float:
    """density ** (round / rounds): every round keeps the same share (Tanaka et al., SynFlow, 2020, Alg. 1)."""
    return density ** (round / rounds)


def linear(density: float, round: int, rounds: int) -> float:
    """1 - (1 - density) * round / rounds: every round removes the same number."""
    return density if round == rounds else 1.0 - (1.0 - density) * round / rounds


SCHEDULES: dict[str, Schedule] = {"exponential": exponential, "linear": linear}


# --- how many entries each layer keeps when the threshold is taken layer by layer ---

Distribution = Callable[[Sequence[int]], float]


def uniform(shape: Sequence[int]) -> float:
    """Every layer has the same density."""
    return 1.0


def erk(shape: Sequence[int]) -> float:
    """Erdos-Renyi-Kernel: density in proportion to (out + in + kernel height + kernel width) / their product.

    Mocanu et al. 2018; with kernels Evci et al., "Rigging the Lottery", ICML 2020, section 3(1).
    """
    return sum(shape) / prod(shape)


#: The relative density of a layer by the shape of its weight.
DISTRIBUTIONS: dict[str, Distribution] = {"uniform": uniform, "erk": erk}


def layer_counts(
    distribution: str, shapes: Mapping[str, Sequence[int]], available: Mapping[str, tuple[int, int]], keep: int
) -> dict[str, int]:
    """Exact numbers of entries to keep, by layer; a layer that would need more than it has keeps all of it.

    Args:
        shapes: of the weights, by name.
        available: by name, the number of a layer's entries and how many of them may be kept.
        keep: total, at most what may be kept.
    """
    shares = [DISTRIBUTIONS[distribution](shape) * available[name][0] for name, shape in shapes.items()]
    counts = apportion(shares, [available[name][1] for name in shapes], keep)
    return dict(zip(shapes, counts, strict=True))


def apportion(shares: Sequence[float], caps: Sequence[int], keep: int) -> list[int]:
    """Whole numbers that add up to ``keep``, in proportion to ``shares``, none above its cap (largest remainders)."""
    counts = [0] * len(shares)
    loose = list(range(len(shares)))
    while loose:
        total = sum(shares[i] for i in loose)
        full = [i for i in loose if keep * shares[i] >= caps[i] * total]
        if not full:
            break
        for i in full:
            counts[i] = caps[i]
            keep -= caps[i]
        loose = [i for i in loose if i not in full]
    quotas = {i: keep * shares[i] / sum(shares[j] for j in loose) for i in loose}
    counts = [int(quotas[i]) if i in quotas else count for i, count in enumerate(counts)]
    missing = keep - sum(counts[i] for i in loose)
    for i in sorted(loose, key=lambda i: (int(quotas[i]) - quotas[i], i))[:missing]:
        counts[i] += 1
    return counts


# --- all of it together ---


@dataclass(frozen=True)
class Plan:
    """Arguments of :func:`pxframe.prune`, checked.

    Raises:
        PxframeError: a value that is none, or two that do not go together.
    """

    sparsity: float
    rounds: int
    schedule: str
    scope: str
    distribution: str
    unit: Granularity

    def __post_init__(self) -> None:
        check_sparsity(self.sparsity)
        if not (isinstance(self.rounds, int) and self.rounds >= 1):
            raise PxframeError(f"rounds must be a whole number of at least 1, got {self.rounds!r}")
        known: dict[str, Iterable[str]] = {"schedule": SCHEDULES, "scope": SCOPES, "distribution": DISTRIBUTIONS}
        for what, names in known.items():
            if getattr(self, what) not in names:
                raise PxframeError(f"there is no {what} {getattr(self, what)!r}{near(getattr(self, what), names)}")
        if self.distribution != "uniform" and self.scope == "global":
            raise PxframeError(
                f"distribution {self.distribution!r} says how much each layer keeps; it needs scope='layer'"
            )
        self.unit.check(self.sparsity, self.distribution)

    def density(self, number: int) -> float:
        """The share of entries kept after round ``number`` (from 1)."""
        return SCHEDULES[self.schedule](1.0 - self.sparsity, number, self.rounds)

    def entries(self, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The entries that are scored and kept or not, by layer: true where anything of them is left."""
        return {name: self.unit.entries(mask) for name, mask in masks.items()}

    def masks(
        self, scores: Mapping[str, Tensor], masks: Mapping[str, Tensor], number: int, revives: bool
    ) -> dict[str, Tensor]:
        """The masks of weights after round ``number``.

        Args:
            scores: a finite one per entry.
            masks: of weights, after the round before.
            revives: what was pruned before may return.
        """
        candidates = self.entries(masks)
        if revives:
            candidates = {name: torch.ones_like(entries) for name, entries in candidates.items()}
        keep = round(self.density(number) * sum(entries.numel() for entries in candidates.values()))
        ranked = self.unit.protect(scores, candidates)
        if self.scope == "global":
            chosen = global_masks(ranked, candidates, keep)
        else:
            available = {name: (c.numel(), int(c.count_nonzero())) for name, c in candidates.items()}
            shapes = {name: mask.shape for name, mask in masks.items()}
            chosen = layer_masks(ranked, candidates, layer_counts(self.distribution, shapes, available, keep))
        return {name: self.unit.expand(chosen[name], mask) for name, mask in masks.items()}

    def describe(self) -> dict[str, Any]:
        """For the ticket's provenance."""
        return {
            "sparsity_asked": self.sparsity,
            "rounds": self.rounds,
            "schedule": self.schedule,
            "scope": self.scope,
            "distribution": self.distribution,
            "granularity": self.unit.describe(),
        }


def check_sparsity(sparsity: Any) -> None:
    """Refuse what is no share of weights to remove, in [0, 1)."""
    if not (isinstance(sparsity, (int, float)) and 0 <= sparsity < 1):
        raise PxframeError(f"sparsity must be in [0, 1), got {sparsity!r}; 0.9 removes 90 % of the weights")
