"""What is kept after each round: sparsity, schedule, scope, distribution and granularity put together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pxframe.distribution import DISTRIBUTIONS, layer_counts
from pxframe.errors import PxframeError, near
from pxframe.granularity import Granularity
from pxframe.schedule import SCHEDULES
from pxframe.threshold import global_masks, layer_masks

SCOPES = ("global", "layer")


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
