"""How a path network reads the trace: which weights, coefficients and gates it uses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, fx

from pxframe.engine.scaled import Exponent


@dataclass(frozen=True)
class Reading:
    """One path network over the graph of f: positive weights, no biases, gates replayed or open.

    A path's value is the product of what stands on its edges: weights, and *coefficients* that do not depend on the
    data (BN at eval, average pooling, interpolation, multiplication by a constant). Coefficients are part of the
    weights: folding one into a neighbouring convolution changes nothing.

    Attributes:
        weights: value of every parameter in this network, by name (already masked and raised to ``power``).
        power: the power that coefficients are raised to. 0: the network counts paths; 1: it multiplies magnitudes;
            2: it multiplies squares.
        replay: True: an activation passes what it passed in f, max-pooling takes what f took, and each gate or other
            factor formed from the data (attention weights, squeeze-excite, 1 / sigma of a layer norm) counts squared
            (as in ||J_v||^2). False: every gate is open, attention uniform, any other factor 1; see ``factors.py``.
        pool: what open max-pooling does: ``"sum"`` counts all paths through it, ``"max"`` keeps the largest.
        variances: by name of a running variance that BN scales by, the variance to use instead.
        ones: names of parameters whose entries are all one; multiplying by them is skipped.
        exponents: by name, for weights that are given as mantissas of at most 1: the exponent of the power of two that
            belongs to each. Bounds on the growth of values then need no reading of tensors.
        scales: the scales of BN nodes, mantissas and exponent, kept from one use of the reading to the next.
        handed: nodes whose path value is that of another node, and that node (see ``folding.py``).
        after: a function applied to the path value of every node that is not handed on; None applies nothing.
    """

    weights: Mapping[str, Tensor]
    power: int
    replay: bool
    pool: Literal["sum", "max"] = "sum"
    variances: Mapping[str, Tensor] | None = None
    ones: frozenset[str] = frozenset()
    exponents: Mapping[str, Exponent] = field(default_factory=dict)
    scales: dict[fx.Node, tuple[Tensor, Exponent]] = field(default_factory=dict)
    handed: Mapping[fx.Node, fx.Node] = field(default_factory=dict)
    after: Callable[[Any], Any] | None = None


def powered(value: Tensor, power: int) -> Tensor:
    """|value|**power, with 0**0 = 0: a coefficient of zero carries no path."""
    if power == 0:
        return (value != 0).to(value.dtype)
    return value.abs() if power == 1 else value.abs().pow(power)


def widest(parameters: Iterable[Tensor]) -> torch.dtype:
    """The dtype of all values of a path network: float64 if any of the model's parameters has it, else float32.

    The inputs do not decide. A model may be given float64 and compute in float16, and the other way round.
    """
    return torch.float64 if any(p.dtype == torch.float64 for p in parameters) else torch.float32


def kept(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask as numbers. From bytes torch makes them ten times as fast as from bools."""
    return mask.view(torch.uint8).to(dtype)


class Made(Mapping[str, Tensor]):
    """Tensors that are made anew whenever they are read: all of them at once would take the memory of another model."""

    def __init__(self, names: Iterable[str], make: Callable[[str], Tensor]) -> None:
        self._names, self._make = dict.fromkeys(names), make

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._names:
            raise KeyError(name)
        return self._make(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def path_weights(parameters: Mapping[str, Tensor], masks: Mapping[str, Tensor], power: int) -> Mapping[str, Tensor]:
    """Every parameter as a path network takes it: ``|theta|**power``, ones for power 0, pruned weights zero."""
    dtype = widest(parameters.values())

    def make(name: str) -> Tensor:
        theta = parameters[name]
        theta = theta.to(dtype) if theta.is_floating_point() else theta
        if name not in masks:
            return torch.ones_like(theta) if power == 0 else powered(theta, power)
        left = kept(masks[name], theta.dtype)
        return left if power == 0 else powered(theta, power) * left

    return Made(parameters, make)


def path_leaves(parameters: Mapping[str, Tensor], masks: Mapping[str, Tensor], power: int) -> dict[str, Tensor]:
    """The same, all at once; the prunable ones require gradients, so that ``dR/du * u`` can be formed."""
    values = dict(path_weights(parameters, masks, power))
    for name in masks:
        values[name].requires_grad_()
    return values
