"""How many entries are kept after each round: sparsity, schedule, scope, distribution and granularity together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor

from pxframe.base.errors import PxframeError, near
from pxframe.base.options import whole_number
from pxframe.pruning.granularity import Granularity, build_granularity
from pxframe.pruning.threshold import global_masks, layer_masks
from pxframe.scoring.scorer import Scorer

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
    """The exact number of entries that each layer keeps. A layer that is owed more than it has keeps all it has.

    Args:
        shapes: of the weights, by name.
        available: by name, the number of a layer's entries, and the number of them that may be kept.
        keep: the total over all layers, at most the number that may be kept.
    """
    shares = [DISTRIBUTIONS[distribution](shape) * available[name][0] for name, shape in shapes.items()]
    counts = apportion(shares, [available[name][1] for name in shapes], keep)
    return dict(zip(shapes, counts, strict=True))


def apportion(shares: Sequence[float], caps: Sequence[int], keep: int) -> list[int]:
    """Whole numbers in proportion to ``shares`` that add up to ``keep``, none above its cap (largest remainders)."""
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


#: What a scorer's config and a scorer's ``defaults`` may set beside the scorer's own options.
PLAN_KEYS = ("sparsity", "rounds", "schedule", "scope", "distribution", "granularity", "exclude")
_DEFAULTS = {
    "schedule": "exponential",
    "scope": "global",
    "distribution": "uniform",
    "granularity": "weight",
    "exclude": (),
}


def split_settings(config: str | Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split the config of a scorer, ``NAME`` or ``dict(type=NAME, ...)``, into two dicts.

    Returns:
        what the scorer is built from (``type`` and its options), and the settings of its plan (:data:`PLAN_KEYS`).
    """
    built_from = {"type": config} if isinstance(config, str) else dict(config)
    settings = {key: built_from.pop(key) for key in PLAN_KEYS if key in built_from}
    return built_from, settings


@dataclass(frozen=True)
class Plan:
    """The settings of one prune, checked; see :func:`pxframe.prune` for what they mean.

    Raises:
        PxframeError: a value that is not allowed, or two that do not go together.
    """

    sparsity: float
    rounds: int
    schedule: str
    scope: str
    distribution: str
    unit: Granularity
    exclude: tuple[str, ...] = ()

    @classmethod
    def of(cls, method: Scorer, *settings: Mapping[str, Any]) -> Plan:
        """The plan of ``method`` under ``settings``: dicts with any of :data:`PLAN_KEYS`.

        An earlier dict overrides a later one, and all of them override the scorer's own ``defaults``. A value of None
        counts as not given.
        """
        found: dict[str, Any] = dict(_DEFAULTS)
        for source in (method.defaults, *reversed(settings)):
            for key in source:
                if key not in PLAN_KEYS:
                    raise PxframeError(f"scorer {method.name!r}: there is no setting {key!r}{near(key, PLAN_KEYS)}")
            found |= {key: value for key, value in source.items() if value is not None}
        unit = build_granularity(found["granularity"])
        return cls(
            sparsity=found.get("sparsity", unit.default_sparsity),
            rounds=found.get("rounds", method.rounds),
            schedule=found["schedule"],
            scope=found["scope"],
            distribution=found["distribution"],
            unit=unit,
            exclude=_patterns(found["exclude"]),
        )

    def __post_init__(self) -> None:
        check_sparsity(self.sparsity)
        whole_number("prune", "rounds", self.rounds)
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
        """The entries of every layer as bool tensors: true where anything of an entry is left."""
        return {name: self.unit.entries(mask) for name, mask in masks.items()}

    def candidates(self, masks: Mapping[str, Tensor], revives: bool) -> dict[str, Tensor]:
        """The entries that may be kept in the next round; with ``revives`` all of them."""
        entries = self.entries(masks)
        return {name: torch.ones_like(e) for name, e in entries.items()} if revives else entries

    def kept(self, entries: Mapping[str, Tensor], number: int) -> int:
        """How many entries are kept after round ``number``."""
        return round(self.density(number) * sum(e.numel() for e in entries.values()))

    def masks(
        self, scores: Mapping[str, Tensor], masks: Mapping[str, Tensor], number: int, revives: bool
    ) -> dict[str, Tensor]:
        """The masks of weights after round ``number``.

        Args:
            scores: one finite score an entry.
            masks: the masks of weights after the round before.
            revives: entries that were pruned before may return.
        """
        candidates = self.candidates(masks, revives)
        keep = self.kept(candidates, number)
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
            "exclude": list(self.exclude),
        }


def check_sparsity(sparsity: Any) -> None:
    """Refuse a sparsity that is not a share of weights, in [0, 1)."""
    if isinstance(sparsity, bool) or not (isinstance(sparsity, (int, float)) and 0 <= sparsity < 1):
        raise PxframeError(f"sparsity must be in [0, 1), got {sparsity!r}; 0.9 removes 90 % of the weights")


def _patterns(exclude: Any) -> tuple[str, ...]:
    patterns = (exclude,) if isinstance(exclude, str) else exclude
    found = tuple(patterns) if isinstance(patterns, Iterable) else (None,)
    if not all(isinstance(pattern, str) for pattern in found):
        raise PxframeError(f"exclude must be a name, or a list of names or patterns, got {exclude!r}")
    return found
