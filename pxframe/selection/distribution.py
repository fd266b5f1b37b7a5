"""How many entries each layer keeps when the threshold is taken layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod

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
