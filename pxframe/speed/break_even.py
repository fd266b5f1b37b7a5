"""From which density on CSR is faster than a dense product, for the sizes of a network's own layers."""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from pxframe.speed.clock import take_times
from pxframe.speed.cpu import Timing, drawn, medians
from pxframe.speed.csr import csr_layer, missing, why_not
from pxframe.speed.sparse import for_inference, layers_of, read_by

DENSITIES = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01)
#: Five measurements of each.
timed: Timing = functools.partial(take_times, rounds=5)


@dataclass(frozen=True)
class BreakEven:
    """What a layer of one size takes, by density.

    Attributes:
        kind: ``"linear"`` or ``"1x1 convolution"``.
        outputs, inputs: of its weight.
        positions: vectors of inputs that it reads at once: tokens or pixels of all images.
        dense: seconds of the dense layer.
        csr: seconds in CSR form by density, for weights that are zero at random.
    """

    kind: str
    outputs: int
    inputs: int
    positions: int
    dense: float
    csr: dict[float, float]

    @property
    def faster_from(self) -> float | None:
        """The largest density measured at which CSR is faster, there and at all smaller ones; None if it never is."""
        best = None
        for density in sorted(self.csr):
            if self.csr[density] >= self.dense:
                break
            best = density
        return best


def break_even(
    model: nn.Module, example: Any, most: int = 5, densities: Sequence[float] = DENSITIES, timing: Timing = timed
) -> list[BreakEven]:
    """Time the largest sizes of linear layers and 1x1 convolutions in a model, dense and in CSR form, in turn.

    Args:
        model: on the CPU; it is not changed.
        example: inputs, as many at once as will be used.
        most: how many sizes, those with the most multiply-accumulates.
        timing: as for :func:`pxframe.speed.cpu.sparse_on_cpu`.

    Returns:
        the largest first; empty where there is no such layer, or torch has no CSR product.
    """
    if missing():
        return []
    network = for_inference(model)
    reads, layers = read_by(network, example), layers_of(network)
    sizes: dict[tuple[str, int, int, int], str] = {}
    for name, x in reads.items():
        trial = thinned(layers[name], 0.0)
        if not why_not(trial):
            outputs, inputs = trial.weight.flatten(1).shape
            with torch.no_grad():
                positions = layers[name](drawn(x)).numel() // outputs
            kind = "linear" if isinstance(trial, nn.Linear) else "1x1 convolution"
            sizes.setdefault((kind, outputs, inputs, positions), name)
    largest = sorted(sizes, key=lambda size: -size[1] * size[2] * size[3])[:most]
    found = []
    for size in largest:
        layer = layers[sizes[size]]
        networks = {"dense": layer, **{str(d): csr_layer(thinned(layer, d)) for d in densities}}
        seconds = medians(timing, networks, drawn(reads[sizes[size]]))
        found.append(BreakEven(*size, seconds["dense"], {d: seconds[str(d)] for d in densities}))
    return found


def thinned(layer: nn.Module, density: float) -> Any:
    """A copy of a layer with about this share of its weights, drawn at random, and zeros; all of them are redrawn."""
    copied: Any = copy.deepcopy(layer)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        kept = torch.rand(copied.weight.shape, generator=generator) < density
        copied.weight.copy_(torch.randn(copied.weight.shape, generator=generator) * kept)
    return copied
