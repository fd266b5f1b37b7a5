"""Granularities: what is kept or pruned as one. Orthogonal to scorer, schedule and scope.

A granularity turns a layer's weights into *entries*, one score and one mask bit each, and an entry's bit back into a
mask of weights.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from pxframe.base.errors import PxframeError, near, some
from pxframe.base.options import check_options
from pxframe.pruning.refit import REFITS
from pxframe.scoring.flops import inputs_first, macs
from pxframe.scoring.net import Net
from pxframe.scoring.scorer import Scorer


@dataclass(frozen=True)
class Weight:
    """Every weight is an entry: unstructured pruning."""

    @property
    def default_sparsity(self) -> float:
        """The sparsity aimed at when the user names none."""
        return 0.982

    def check(self, sparsity: float, distribution: str) -> None:
        """Refuse what cannot go together with this granularity."""

    def names(self, weights: Mapping[str, Tensor]) -> list[str]:
        """The layers it applies to; the others stay dense and are not counted."""
        return list(weights)

    def entries(self, mask: Tensor) -> Tensor:
        """Bool tensor of entries from a mask of weights: which of them have anything left."""
        return mask

    def expand(self, entries: Tensor, mask: Tensor) -> Tensor:
        """The mask of weights, of the shape of ``mask``, in which just ``entries`` are kept."""
        return entries

    def score(self, scorer: Scorer, net: Net, batches: Iterable[Any]) -> dict[str, Tensor]:
        """The scorer's score for every entry, by name."""
        return scorer.score(net, batches)

    def protect(self, scores: Mapping[str, Tensor], candidates: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Scores in which entries that must be kept stand above all others."""
        return dict(scores)

    def check_layers(self, net: Net, inputs: Tensor | None) -> None:
        """Refuse layers that this granularity cannot read."""

    def restart(self, net: Net, inputs: Tensor | None, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What ``weights``, from which training would start, are to be replaced with at the final masks, by name."""
        return {}

    def describe(self) -> dict[str, Any]:
        """For the ticket's provenance."""
        return {"type": type(self).__name__.lower(), **asdict(self)}


@dataclass(frozen=True)
class Channel(Weight):
    """Every output channel is an entry, the channels of all layers competing with each other (3SP).

    van Amersfoort et al., "Single Shot Structured Pruning Before Training", 2020; Alizadeh et al., "Prospect Pruning",
    ICLR 2022, section 4.3. Sparsity is the share of channels. The masks cover whole channels of weights; removing
    them from the network is another matter. The last layer's channels are the network's outputs: exclude it.

    Args:
        compute_aware: divide each score by the multiply-accumulates that its channel costs.
        refit: what becomes of the weights that are kept, since each layer now sums fewer inputs: ``"keep"`` them,
            ``"reinit"`` draws them anew, ``"rescale"`` multiplies them, both for the inputs that are left. Layers that
            are excluded stay as they are.
    """

    compute_aware: bool = False
    refit: str = "keep"

    def __post_init__(self) -> None:
        if self.refit not in REFITS:
            raise PxframeError(f"granularity 'channel': there is no refit {self.refit!r}{near(self.refit, REFITS)}")

    def entries(self, mask: Tensor) -> Tensor:
        return mask.flatten(1).any(1)

    def expand(self, entries: Tensor, mask: Tensor) -> Tensor:
        return entries.view(-1, *[1] * (mask.ndim - 1)).expand(mask.shape).contiguous()

    def score(self, scorer: Scorer, net: Net, batches: Iterable[Any]) -> dict[str, Tensor]:
        scores = scorer.score_channels(net, batches)
        if not self.compute_aware:
            return scores
        inputs = next((x for x, _ in batches), None)
        if inputs is None:
            raise PxframeError("granularity 'channel' with compute_aware needs one batch, to know the size of the maps")
        costs = macs(net.trace(inputs[:1]))
        return {name: score * len(score) / max(costs.get(name, 1), 1) for name, score in scores.items()}

    def check_layers(self, net: Net, inputs: Tensor | None) -> None:
        _check_outputs_first("channel", net, inputs)

    def restart(self, net: Net, inputs: Tensor | None, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return REFITS[self.refit](net, inputs, weights)


@dataclass(frozen=True)
class Pattern(Weight):
    """N:M sparsity: of every M consecutive input channels, N weights are kept, at each output and kernel position.

    Mishra et al., "Accelerating Sparse Deep Neural Networks", 2021 (2:4). Over several rounds, what exceeds N competes
    by the schedule and scope as single weights do. Layers whose inputs are no multiple of M stay dense, not counted.
    """

    n: int
    m: int

    def __post_init__(self) -> None:
        if not 0 < self.n < self.m:
            raise PxframeError(f"granularity '{self.n}:{self.m}': N of every M are kept, with 0 < N < M, as in '2:4'")

    @property
    def default_sparsity(self) -> float:
        return 1 - self.n / self.m

    def check(self, sparsity: float, distribution: str) -> None:
        if abs(sparsity - self.default_sparsity) > 1e-9:
            raise PxframeError(
                f"granularity '{self.n}:{self.m}' has a sparsity of its own, {self.default_sparsity:.4g}, "
                f"and {sparsity} was asked for; leave sparsity out"
            )
        if distribution != "uniform":
            raise PxframeError(
                f"granularity '{self.n}:{self.m}' keeps the same share of every layer, not {distribution!r}"
            )

    def names(self, weights: Mapping[str, Tensor]) -> list[str]:
        fit = [name for name, weight in weights.items() if weight.shape[1] % self.m == 0]
        if not fit:
            raise PxframeError(f"granularity '{self.n}:{self.m}': no layer's inputs are a multiple of {self.m}")
        return fit

    def protect(self, scores: Mapping[str, Tensor], candidates: Mapping[str, Tensor]) -> dict[str, Tensor]:
        protected = {}
        for name, score in scores.items():
            groups = score.masked_fill(~candidates[name], -torch.inf).movedim(1, -1).unflatten(-1, (-1, self.m))
            groups = groups.scatter(-1, groups.topk(self.n).indices, torch.inf)
            protected[name] = groups.flatten(-2).movedim(-1, 1)
        return protected

    def check_layers(self, net: Net, inputs: Tensor | None) -> None:
        _check_outputs_first(f"{self.n}:{self.m}", net, inputs)

    def describe(self) -> dict[str, Any]:
        return {"type": f"{self.n}:{self.m}"}


def _check_outputs_first(name: str, net: Net, inputs: Tensor | None) -> None:
    if inputs is None:
        return
    turned = [n for n in inputs_first(net.trace(inputs[:1])) if n in net.masks]
    if turned:
        raise PxframeError(
            f"granularity {name!r}: {some(turned)} has its inputs, not its outputs, in the first dimension "
            f"(a transposed convolution, or x @ weight); exclude it"
        )


Granularity = Weight
GRANULARITIES: dict[str, type[Weight]] = {"weight": Weight, "channel": Channel}


def build_granularity(config: str | Mapping[str, Any] | Granularity) -> Granularity:
    """``"weight"``, ``"channel"``, ``"2:4"`` (any N:M), or ``dict(type=..., **options)``.

    Raises:
        PxframeError: there is no such granularity or option.
    """
    if isinstance(config, Weight):
        return config
    options = {"type": config} if isinstance(config, str) else dict(config)
    name = options.pop("type", None)
    if pattern := re.fullmatch(r"(\d+):(\d+)", str(name)):
        options |= {"n": int(pattern[1]), "m": int(pattern[2])}
        cls: type[Weight] = Pattern
    elif name in GRANULARITIES:
        cls = GRANULARITIES[name]
    else:
        raise PxframeError(f"there is no granularity {name!r}{near(str(name), [*GRANULARITIES, '2:4'])}")
    check_options(cls, options, f"granularity {name!r}")
    return cls(**options)
