"""Granularities: what is kept or pruned as one. Orthogonal to scorer, schedule and scope.

A granularity turns a layer's weights into *entries* with one score and one mask bit each, and turns the bits of the
entries back into a mask of weights.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from pxframe.base.errors import PxframeError, near
from pxframe.base.options import check_options, one_of

#: What the score of channels that go together may be: that of one mask entry on all of them, or one made of those of
#: the layers that make them.
GROUP_SCORES = ("sum", "mean", "max", "entry")


@dataclass(frozen=True)
class Granularity:
    """Base of all granularities; as it stands, every weight is an entry.

    Class attributes say what the loop must do for it:

    * ``scores_channels``: entries are output channels, scored by ``Scorer.score_channels``;
    * ``scores_groups``: entries are output channels of several layers, scored by ``Scorer.score_groups``;
    * ``outputs_first``: layers must have their outputs in the first dimension of their weights;
    * ``compute_aware``: scores are divided by what an entry costs;
    * ``pattern``: N and M where N of every M consecutive inputs are kept, else None.
    """

    scores_channels = False
    outputs_first = False
    compute_aware = False

    @property
    def pattern(self) -> tuple[int, int] | None:
        return None

    @property
    def scores_groups(self) -> bool:
        return False

    @property
    def name(self) -> str:
        """What users call it."""
        raise NotImplementedError

    @property
    def default_sparsity(self) -> float:
        """The sparsity when neither the user nor the scorer names one."""
        return 0.982

    def check(self, sparsity: float, distribution: str) -> None:
        """Refuse a sparsity or distribution that this granularity cannot reach."""

    def fitting(self, weights: Mapping[str, Tensor]) -> list[str]:
        """The layers this granularity applies to. The other layers stay dense and are not counted."""
        return list(weights)

    def entries(self, mask: Tensor) -> Tensor:
        """Bool tensor of entries from a mask of weights: true where anything of the entry is left."""
        return mask

    def expand(self, entries: Tensor, mask: Tensor) -> Tensor:
        """The mask of weights, of the shape of ``mask``, that keeps exactly ``entries``."""
        return entries

    def of_layers(self, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The entries of all layers, by layer, or by group where an entry is a part of several layers."""
        return {name: self.entries(mask) for name, mask in masks.items()}

    def scored(self, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The entries that a scorer gives one score each: by group for ``score_groups``, else by layer."""
        return self.of_layers(masks) if self.scores_groups else {n: self.entries(mask) for n, mask in masks.items()}

    def to_layers(self, chosen: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The masks of all layers that keep exactly the ``chosen`` entries."""
        return {name: self.expand(chosen[name], mask) for name, mask in masks.items()}

    def join(self, scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The scores of entries, from those that a scorer gave each layer."""
        return dict(scores)

    def entry_costs(self, costs: Mapping[str, int], masks: Mapping[str, Tensor]) -> dict[str, float]:
        """What one entry costs, by layer or group, from the costs of whole layers; at least one for a layer."""
        return {name: max(costs.get(name, 1), 1) / len(self.entries(mask)) for name, mask in masks.items()}

    def protect(self, scores: Mapping[str, Tensor], candidates: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Scores in which the entries that must be kept stand above all others."""
        return dict(scores)

    def describe(self) -> dict[str, Any]:
        """Name and options, for the ticket's provenance."""
        return {"type": self.name, **asdict(self)}


@dataclass(frozen=True)
class Unstructured(Granularity):
    """Every weight is an entry."""

    @property
    def name(self) -> str:
        return "weight"


@dataclass(frozen=True)
class Channel(Granularity):
    """Every output channel is an entry; the channels of all layers compete with each other (3SP).

    van Amersfoort et al., "Single Shot Structured Pruning Before Training", 2020; Alizadeh et al., "Prospect Pruning",
    ICLR 2022, section 4.3. Sparsity is the share of channels. The masks cover all weights of a channel; removing
    the channels from the network is another step. The channels of the last layer are the network's outputs: exclude it.

    Args:
        compute_aware: divide each score by the multiply-accumulates that its channel costs.
        groups: channels of several layers that can only be removed together, as the layers of a residual stream, are
            one entry. Sparsity is the share of such entries. ``"sum"``, ``"mean"`` or ``"max"``: its score is made of
            those of the layers. ``"entry"``: it is the method's own for one mask entry that multiplies all of these
            channels (``Scorer.score_groups``). For SNIP and ProsPr that is |dL/dc|, the magnitude of the sum over the
            layers of dL/dc with its sign; for methods without such a formula it is the ``"sum"``. None: each layer's
            channels for themselves.
    """

    compute_aware: bool = False
    groups: str | None = None

    def __post_init__(self) -> None:
        if self.groups is not None:
            one_of("granularity 'channel'", "groups", self.groups, GROUP_SCORES)

    scores_channels = True
    outputs_first = True

    @property
    def scores_groups(self) -> bool:
        return self.groups == "entry"

    @property
    def name(self) -> str:
        return "channel"

    def entries(self, mask: Tensor) -> Tensor:
        return mask.flatten(1).any(1)

    def describe(self) -> dict[str, Any]:
        found = {"type": self.name, "compute_aware": self.compute_aware}
        return found if self.groups is None else {**found, "groups": self.groups}

    def expand(self, entries: Tensor, mask: Tensor) -> Tensor:
        return entries.view(-1, *[1] * (mask.ndim - 1)).expand(mask.shape).contiguous()


@dataclass(frozen=True)
class Pattern(Granularity):
    """N:M sparsity: of every M consecutive input channels, N weights are kept, at each output and kernel position.

    Mishra et al., "Accelerating Sparse Deep Neural Networks", 2021 (2:4). Over several rounds, the weights beyond the N
    best of each group are pruned gradually, by the schedule and scope. A layer whose number of inputs is no multiple
    of M stays dense and is not counted.
    """

    n: int
    m: int

    outputs_first = True

    def __post_init__(self) -> None:
        if not 0 < self.n < self.m:
            raise PxframeError(f"granularity {self.name!r}: N of every M are kept, with 0 < N < M, as in '2:4'")

    @property
    def name(self) -> str:
        return f"{self.n}:{self.m}"

    @property
    def pattern(self) -> tuple[int, int]:
        return self.n, self.m

    @property
    def default_sparsity(self) -> float:
        return 1 - self.n / self.m

    def check(self, sparsity: float, distribution: str) -> None:
        if abs(sparsity - self.default_sparsity) > 1e-9:
            raise PxframeError(
                f"granularity {self.name!r} has a sparsity of its own, {self.default_sparsity:.4g}, "
                f"and {sparsity} was asked for; leave sparsity out"
            )
        if distribution != "uniform":
            raise PxframeError(f"granularity {self.name!r} keeps the same share of every layer, not {distribution!r}")

    def fitting(self, weights: Mapping[str, Tensor]) -> list[str]:
        fit = [name for name, weight in weights.items() if weight.shape[1] % self.m == 0]
        if not fit:
            raise PxframeError(f"granularity {self.name!r}: no layer's inputs are a multiple of {self.m}")
        return fit

    def protect(self, scores: Mapping[str, Tensor], candidates: Mapping[str, Tensor]) -> dict[str, Tensor]:
        protected = {}
        for name, score in scores.items():
            groups = score.masked_fill(~candidates[name], -torch.inf).movedim(1, -1).unflatten(-1, (-1, self.m))
            groups = groups.scatter(-1, groups.topk(self.n).indices, torch.inf)
            protected[name] = groups.flatten(-2).movedim(-1, 1)
        return protected

    def describe(self) -> dict[str, Any]:
        return {"type": self.name}


GRANULARITIES: dict[str, type[Granularity]] = {"weight": Unstructured, "channel": Channel}


def build_granularity(config: str | Mapping[str, Any] | Granularity) -> Granularity:
    """``"weight"``, ``"channel"``, ``"2:4"`` (any N:M), or ``dict(type=..., **options)``.

    Raises:
        PxframeError: there is no such granularity or option.
    """
    if isinstance(config, Granularity):
        return config
    options = {"type": config} if isinstance(config, str) else dict(config)
    name = options.pop("type", None)
    if pattern := re.fullmatch(r"(\d+):(\d+)", str(name)):
        options |= {"n": int(pattern[1]), "m": int(pattern[2])}
        cls: type[Granularity] = Pattern
    elif name in GRANULARITIES:
        cls = GRANULARITIES[name]
    else:
        raise PxframeError(f"there is no granularity {name!r}{near(str(name), [*GRANULARITIES, '2:4'])}")
    check_options(cls, options, f"granularity {name!r}")
    return cls(**options)
