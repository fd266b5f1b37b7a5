"""How many entries are kept after each round: sparsity, schedule, scope, distribution and granularity together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pxframe.base.errors import PxframeError, near
from pxframe.base.options import whole_number
from pxframe.pruning.target import LEVELS, Target, check_sparsity, target_of
from pxframe.refits.table import Refit, build_refit
from pxframe.scoring.scorer import Scorer
from pxframe.selection.distribution import DISTRIBUTIONS, layer_counts
from pxframe.selection.granularity import Granularity, build_granularity
from pxframe.selection.schedule import SCHEDULES
from pxframe.selection.threshold import counts, global_masks, layer_masks, row_masks

SCOPES = ("global", "layer", "row")

#: What a scorer's config and a scorer's ``defaults`` may set beside the scorer's own options.
PLAN_KEYS = (*LEVELS, "rounds", "schedule", "scope", "distribution", "granularity", "exclude", "refit")
_DEFAULTS = {
    "schedule": "exponential",
    "scope": "global",
    "distribution": "uniform",
    "granularity": "weight",
    "exclude": (),
    "refit": "keep",
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
class Held:
    """Entries that are neither pruned nor counted, although others of their layer are.

    Attributes:
        entries: bool tensors by layer, true where held; layers without a held entry are left out.
        counts: how many, by layer; counted once, since counting waits for a GPU.
    """

    entries: Mapping[str, Tensor]
    counts: Mapping[str, int]


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
    granularity: Granularity
    exclude: tuple[str, ...] = ()
    refit: Refit = field(default_factory=Refit)
    target: Target | None = None

    @classmethod
    def of(cls, method: Scorer, *settings: Mapping[str, Any]) -> Plan:
        """The plan of ``method`` under ``settings``: dicts with any of :data:`PLAN_KEYS`.

        An earlier dict overrides a later one, and all of them override the scorer's own ``defaults``. A value of None
        counts as not given. A sparsity overrides a target, and the other way round.
        """
        found: dict[str, Any] = dict(_DEFAULTS)
        for source in (method.defaults, *reversed(settings)):
            for key in source:
                if key not in PLAN_KEYS:
                    raise PxframeError(f"scorer {method.name!r}: there is no setting {key!r}{near(key, PLAN_KEYS)}")
            given = {key: value for key, value in source.items() if value is not None}
            levels = [key for key in LEVELS if key in given]
            if len(levels) > 1:
                raise PxframeError(f"{' and '.join(levels)} both say how much is removed; give one of them")
            found = {key: value for key, value in found.items() if not levels or key not in LEVELS} | given
        if found["scope"] == "global" and not method.comparable:
            raise PxframeError(
                f"scorer {method.name!r}: its scores have another unit in each layer, so there is no global threshold; "
                f"take scope='layer' or scope='row'"
            )
        refit = build_refit(found["refit"])
        if refit.when != "last" and (method.needs == "training" or method.revives):
            does = "lets pruned weights return" if method.revives else "trains the network in every round"
            raise PxframeError(
                f"scorer {method.name!r} {does}; refit {refit.name!r} can follow the last round only: leave out 'when'"
            )
        if refit.fits_dense and method.needs == "training" and type(method).restart is not Scorer.restart:
            raise PxframeError(
                f"scorer {method.name!r} gives weights to start from that it has trained, and refit {refit.name!r} "
                f"would fit them to the outputs of the untrained network: take refit 'bn'"
            )
        granularity, target = build_granularity(found["granularity"]), target_of(found)
        if target is not None and method.needs == "training":
            raise PxframeError(
                f"scorer {method.name!r} trains the network for each sparsity, and a target takes many: give sparsity "
                f"instead of {target.kind}"
            )
        return cls(
            sparsity=found.get("sparsity", granularity.default_sparsity),
            rounds=found.get("rounds", method.rounds),
            schedule=found["schedule"],
            scope=found["scope"],
            distribution=found["distribution"],
            granularity=granularity,
            exclude=patterns(found["exclude"]),
            refit=refit,
            target=target,
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
                f"distribution {self.distribution!r} says how much each layer keeps; it needs scope='layer' or 'row'"
            )
        if self.scope == "row" and self.granularity.name != "weight":
            raise PxframeError(f"scope 'row' compares single weights; granularity is {self.granularity.name!r}")
        if self.refit.when == "between" and self.rounds == 1:
            raise PxframeError(
                f"refit {self.refit.name!r} with when='between' stands between rounds: give 'rounds', at least 2"
            )
        self.granularity.check(self.sparsity, self.distribution)
        if self.target is not None and not self.granularity.scores_channels:
            raise PxframeError(
                f"{self.target.kind} is a target for granularity 'channel', whose channels can be taken out; with "
                f"granularity {self.granularity.name!r} give sparsity"
            )

    @property
    def outputs_first(self) -> str:
        """What needs the outputs in the first dimension of every weight; the empty string if nothing does."""
        if self.scope == "row":
            return "scope 'row'"
        if self.refit.outputs_first:
            return f"refit {self.refit.name!r}"
        return f"granularity {self.granularity.name!r}" if self.granularity.outputs_first else ""

    def density(self, number: int) -> float:
        """The share of entries kept after round ``number`` (from 1)."""
        return SCHEDULES[self.schedule](1.0 - self.sparsity, number, self.rounds)

    def held(self, rows: Mapping[str, Tensor]) -> Held:
        """The entries that are held where ``rows``, bool tensors of the weights' shapes, are true."""
        entries = self.granularity.of_layers(rows)
        return Held(entries, {name: int(e.count_nonzero()) for name, e in entries.items()})

    def entries(self, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The entries of every layer or group as bool tensors: true where anything of an entry is left."""
        return self.granularity.of_layers(masks)

    def candidates(self, masks: Mapping[str, Tensor], revives: bool, held: Held) -> dict[str, Tensor]:
        """The entries that may be kept in the next round, without those held; with ``revives`` all of them."""
        entries = self.entries(masks)
        if revives:
            entries = {name: torch.ones_like(e) for name, e in entries.items()}
        return {name: e & ~held.entries[name] if name in held.entries else e for name, e in entries.items()}

    def kept(self, entries: Mapping[str, Tensor], number: int, held: Held) -> int:
        """How many entries are kept after round ``number``, those held not counted."""
        return round(self.density(number) * (sum(e.numel() for e in entries.values()) - sum(held.counts.values())))

    def refits(self, number: int) -> bool:
        """Whether the network takes other values after round ``number``."""
        last = number == self.rounds
        return not last if self.refit.when == "between" else last or self.refit.when == "every"

    def checks(self, number: int, revives: bool) -> bool:
        """Whether to look after round ``number`` if the network has collapsed.

        That takes a pass through it, as long as a round of many scorers. What has collapsed stays so, and one look
        halfway stops early enough; but with ``revives`` the network may be connected again, so that only the last
        round counts.
        """
        return number == self.rounds or (not revives and 2 * number == self.rounds)

    def masks(
        self,
        scores: Mapping[str, Tensor],
        masks: Mapping[str, Tensor],
        candidates: Mapping[str, Tensor],
        keep: int | Mapping[str, int],
        held: Held,
    ) -> dict[str, Tensor]:
        """The masks of weights after a round.

        Args:
            scores: one finite score an entry.
            masks: the masks of weights after the round before.
            candidates: the entries that may be kept.
            keep: how many of them are kept, of all layers together or of each.
            held: entries that stay, and are not counted.
        """
        ranked = self.granularity.protect(scores, candidates)
        if isinstance(keep, int):
            chosen = global_masks(ranked, candidates, keep)
        else:
            chosen = (row_masks if self.scope == "row" else layer_masks)(ranked, candidates, keep)
        for name, entries in held.entries.items():
            chosen[name] = chosen[name] | entries
        return self.granularity.to_layers(chosen, masks)

    def quotas(
        self, masks: Mapping[str, Tensor], candidates: Mapping[str, Tensor], keep: int, held: Held
    ) -> dict[str, int] | None:
        """How many of the ``candidates`` each layer keeps, ``keep`` in all; None with one threshold over all."""
        if self.scope == "global":
            return None
        left = counts(list(candidates.values()))
        available = {
            name: (entries.numel() - held.counts.get(name, 0), count)
            for (name, entries), count in zip(candidates.items(), left, strict=True)
        }
        return layer_counts(self.distribution, {name: masks[name].shape for name in candidates}, available, keep)

    def describe(self) -> dict[str, Any]:
        """For the ticket's provenance."""
        return {
            "sparsity_asked": self.sparsity,
            "rounds": self.rounds,
            "schedule": self.schedule,
            "scope": self.scope,
            "distribution": self.distribution,
            "granularity": self.granularity.describe(),
            "exclude": list(self.exclude),
            "refit": self.refit.describe(),
            **({} if self.target is None else {"target": {self.target.kind: self.target.share}}),
        }


def patterns(exclude: Any) -> tuple[str, ...]:
    """The patterns that a user gave as ``exclude``: one, or any number of them."""
    given = (exclude,) if isinstance(exclude, str) else exclude
    found = tuple(given) if isinstance(given, Iterable) else (None,)
    if not all(isinstance(pattern, str) for pattern in found):
        raise PxframeError(f"exclude must be a name, or a list of names or patterns, got {exclude!r}")
    return found
