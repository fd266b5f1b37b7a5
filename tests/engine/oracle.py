"""An oracle for path quantities: a network written out unit by unit, and all of its paths, one by one.

Nothing here uses the package or torch: units are rows of a table, edges carry a weight's index or a fixed coefficient,
and every path from an input unit to an output unit is walked. Exponential, so for tiny networks only.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field


@dataclass
class Unit:
    """value = act(bias + sum of edges); ``edges`` are (source unit, weight key or None, coefficient)."""

    edges: list = field(default_factory=list)
    bias: float = 0.0
    kind: str = "linear"  # "input", "linear", "relu", "max"
    scale: float = 1.0  # BN: value = scale * (sum) + bias, a part of every path through the unit
    value: float = 0.0
    chosen: int = -1  # "max": index of the edge f took


class Network:
    def __init__(self, weights: dict) -> None:
        self.weights = weights  # key -> float
        self.units: list[Unit] = []

    def add(self, **kwargs) -> int:
        self.units.append(Unit(**kwargs))
        return len(self.units) - 1

    # --- layers: lists of unit indices in, lists of unit indices out ------------------------------------------------

    def inputs(self, n: int) -> list[int]:
        return [self.add(kind="input") for _ in range(n)]

    def linear(self, source: list[int], name: str, out: int, bias=None) -> list[int]:
        return [
            self.add(
                edges=[(s, (name, o * len(source) + i), 1.0) for i, s in enumerate(source)],
                bias=float(bias[o]) if bias is not None else 0.0,
            )
            for o in range(out)
        ]

    def conv(self, source, shape, name, out, k, stride=1, pad=0, bias=None):
        """``source`` indexed [c][y][x] flattened; returns units and the new (c, h, w)."""
        c, h, w = shape
        oh, ow = (h + 2 * pad - k) // stride + 1, (w + 2 * pad - k) // stride + 1
        units = []
        for o in range(out):
            for y in range(oh):
                for x in range(ow):
                    edges = []
                    for i in range(c):
                        for dy in range(k):
                            for dx in range(k):
                                sy, sx = y * stride + dy - pad, x * stride + dx - pad
                                if 0 <= sy < h and 0 <= sx < w:
                                    key = (name, ((o * c + i) * k + dy) * k + dx)
                                    edges.append((source[(i * h + sy) * w + sx], key, 1.0))
                    units.append(self.add(edges=edges, bias=float(bias[o]) if bias is not None else 0.0))
        return units, (out, oh, ow)

    def pool(self, source, shape, k, kind):
        """Non-overlapping windows; ``kind`` is "max" or "avg"."""
        c, h, w = shape
        units = []
        for i in range(c):
            for y in range(h // k):
                for x in range(w // k):
                    window = [source[(i * h + y * k + dy) * w + x * k + dx] for dy in range(k) for dx in range(k)]
                    coefficient = 1.0 if kind == "max" else 1.0 / (k * k)
                    edges = [(s, None, coefficient) for s in window]
                    units.append(self.add(edges=edges, kind="max" if kind == "max" else "linear"))
        return units, (c, h // k, w // k)

    def relu(self, source):
        return [self.add(edges=[(s, None, 1.0)], kind="relu") for s in source]

    def batch_norm(self, source, shape, gamma, beta, mean, var, eps):
        per = shape[1] * shape[2]
        units = []
        for index, s in enumerate(source):
            c = index // per
            scale = float(gamma[c]) / math.sqrt(float(var[c]) + eps)
            units.append(self.add(edges=[(s, None, 1.0)], scale=scale, bias=float(beta[c]) - float(mean[c]) * scale))
        return units

    def plus(self, a, b):
        return [self.add(edges=[(p, None, 1.0), (q, None, 1.0)]) for p, q in zip(a, b, strict=True)]

    # --- f, and the walk over all paths ------------------------------------------------------------

    def run(self, x) -> None:
        x = iter(x)
        for unit in self.units:
            if unit.kind == "input":
                unit.value = float(next(x))
                continue
            terms = [
                self.units[s].value * coefficient * (self.weights[key] if key else 1.0)
                for s, key, coefficient in unit.edges
            ]
            if unit.kind == "max":
                unit.chosen = max(range(len(terms)), key=terms.__getitem__)
                unit.value = terms[unit.chosen]
            else:
                unit.value = unit.scale * sum(terms) + unit.bias
                if unit.kind == "relu":
                    unit.value = max(unit.value, 0.0)

    def paths(self, output: int):
        """Every path to ``output``: (input unit, weight keys, fixed value, active in the last run)."""
        stack = [(output, (), 1.0, True)]
        while stack:
            at, keys, fixed, active = stack.pop()
            unit = self.units[at]
            if unit.kind == "input":
                yield at, keys, fixed, active
                continue
            opened = active and (unit.kind != "relu" or unit.value > 0)
            for index, (source, key, coefficient) in enumerate(unit.edges):
                through = opened and (unit.kind != "max" or index == unit.chosen)
                stack.append((source, (*keys, key) if key else keys, fixed * coefficient * unit.scale, through))


def measure(network: Network, samples, outputs, kept=None):
    """By the definitions, path by path.

    Returns ``(||J_v^f||_F^2, ||J_theta^v||_F^2, Eq. 9 scores by weight key, joint scores by weight key)``.
    A path with a pruned weight is none. The scores: R = sum_k (sum_n g^k(x_n^2)) h^k, S_j = dR/d(theta_j^2) theta_j^2,
    which is the sum over the paths through j of c_k v_p^2 (once for each time the path uses j).
    """
    kept = kept or (lambda key: True)
    count = defaultdict(float)  # output -> sum_n sum over active paths x_p^2
    joint = defaultdict(float)
    for x in samples:
        network.run(x)
        for k in outputs:
            for source, keys, fixed, active in network.paths(k):
                if active and all(kept(key) for key in keys):
                    squared = network.units[source].value ** 2
                    count[k] += squared
                    value = math.prod(network.weights[key] ** 2 for key in keys) * fixed**2 * squared
                    for key in keys:
                        joint[key] += value
    theta_norm = 0.0
    scores = defaultdict(float)
    for k in outputs:
        for _, keys, fixed, _ in network.paths(k):
            if not all(kept(key) for key in keys):
                continue
            squares = [network.weights[key] ** 2 for key in keys]
            value = math.prod(squares) * fixed**2
            for index, key in enumerate(keys):
                scores[key] += count[k] * value
                theta_norm += math.prod(squares[:index] + squares[index + 1 :]) * fixed**2
    return sum(count.values()), theta_norm, dict(scores), dict(joint)
