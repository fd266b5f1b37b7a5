"""How much a prune removes: a sparsity, or a target that a ticket of channels is to reach."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pxframe.base.errors import PxframeError
from pxframe.speed.shares import KINDS

#: Settings of which one says how much a ticket removes.
LEVELS = ("sparsity", *KINDS)


@dataclass(frozen=True)
class Target:
    """The share of a cost of the dense network that the slim one is to have.

    Attributes:
        kind: one of :data:`pxframe.speed.shares.KINDS`.
        share: in (0, 1).
    """

    kind: str
    share: float

    def __post_init__(self) -> None:
        share = self.share
        number = isinstance(share, (int, float)) and not isinstance(share, bool)
        if not number or not 0 < share < 1:
            advice = f"{self.kind}=0.5 leaves half of the {KINDS[self.kind]}"
            if number and 1 < share < 100:
                advice = f"did you mean {share / 100:.10g}, which leaves {share} % of the {KINDS[self.kind]}?"
            raise PxframeError(f"{self.kind} must be one number in (0, 1), got {share!r}; {advice}")


def target_of(settings: Mapping[str, Any]) -> Target | None:
    """The target among the settings of one prune; None if they have none."""
    return next((Target(kind, settings[kind]) for kind in KINDS if settings.get(kind) is not None), None)


def check_sparsity(sparsity: Any) -> None:
    """Refuse a sparsity that is not a share of weights, in [0, 1)."""
    if isinstance(sparsity, (list, tuple)):
        raise PxframeError(
            f"sparsity must be one number in [0, 1), got {sparsity!r}; prune once for each, or run a job: its config "
            f"takes a list"
        )
    if isinstance(sparsity, bool) or not (isinstance(sparsity, (int, float)) and 0 <= sparsity < 1):
        advice = "0.9 removes 90 % of the weights"
        if not isinstance(sparsity, bool) and isinstance(sparsity, (int, float)) and 1 < sparsity < 100:
            advice = f"did you mean {sparsity / 100:.10g}, which removes {sparsity} % of the weights?"
        raise PxframeError(f"sparsity must be in [0, 1), got {sparsity!r}; {advice}")
