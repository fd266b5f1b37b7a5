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
    kind: str = "linear"  # "input", "one" (paths start at 1, an embedding's), "linear", "relu", "max", "factor"
    scale: float = 1.0  # BN: value = scale * (sum) + bias, a part of every path through the unit
    factors: list = field(default_factory=list)  # for each edge a "factor" unit that multiplies its term, -1: none
    shift: int = -1  # a "factor" unit whose value f adds; it carries no path
    reads: list = field(default_factory=list)  # "factor": value = function(values of these units); no path runs there
    function: object = None
    opened: float = 1.0  # "factor": what it counts for without the data
    value: float = 0.0
    chosen: int = -1  # "max": index of the edge f took

    def all_factors(self) -> list:
        return self.factors or [-1] * len(self.edges)


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

    def linear(self, source: list[int], name: str, out: int, bias=None, row: int = 0) -> list[int]:
        """``row``: the first of the weight's rows that is used."""
        return [
            self.add(
                edges=[(s, (name, (row + o) * len(source) + i), 1.0) for i, s in enumerate(source)],
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

    def plus_constants(self, a, constants):
        return [self.add(edges=[(p, None, 1.0)], bias=float(c)) for p, c in zip(a, constants, strict=True)]

    def mean(self, groups):
        """Unit i: the mean of ``group[i]`` over all groups."""
        return [self.add(edges=[(s, None, 1.0 / len(groups)) for s in units]) for units in zip(*groups, strict=True)]

    # --- factors: multipliers formed from the data ------------------------------------------------------------------

    def factor(self, reads, function, opened=1.0) -> int:
        return self.add(kind="factor", reads=list(reads), function=function, opened=opened)

    def times(self, source, factors):
        return [self.add(edges=[(s, None, 1.0)], factors=[a]) for s, a in zip(source, factors, strict=True)]

    def gated(self, source, gate):
        """z * gate(z): GELU, SiLU and their like."""
        return self.times(source, [self.factor([s], lambda z: gate(z[0])) for s in source])

    def normed(self, source, gamma, beta, eps):
        """All of ``source`` normalised together: a layer norm, or one group of a group norm."""
        inverse = self.factor(source, lambda z: (_variance(z) + eps) ** -0.5)
        mean_over_sigma = self.factor(source, lambda z: sum(z) / len(z) * (_variance(z) + eps) ** -0.5)
        return [
            self.add(
                edges=[(s, None, 1.0)],
                factors=[inverse],
                scale=float(g),
                bias=float(b),
                shift=self.factor([mean_over_sigma], lambda z, g=float(g): -g * z[0]),
            )
            for s, g, b in zip(source, gamma, beta, strict=True)
        ]

    def attention(self, queries, keys, values, heads, allowed):
        """Lists of units per token; what token i gets is sum_j softmax_j(q_i k_j / sqrt(d)) v_j, head by head.

        ``allowed[i][j]``: whether token i may look at token j.
        """
        width = len(values[0]) // heads
        results = []
        for i, query in enumerate(queries):
            seen = [j for j in range(len(keys)) if allowed[i][j]]
            result = []
            for head in range(heads):
                at = slice(head * width, (head + 1) * width)
                reads = [*query[at], *(unit for j in seen for unit in keys[j][at])]
                weights = [
                    self.factor(reads, _softmax_entry(place, width), 1 / len(seen)) for place in range(len(seen))
                ]
                for d in range(*at.indices(len(query))):
                    result.append(self.add(edges=[(values[j][d], None, 1.0) for j in seen], factors=weights))
            results.append(result)
        return results

    # --- f, and the walk over all paths ------------------------------------------------------------

    def run(self, x) -> None:
        x = iter(x)
        for unit in self.units:
            if unit.kind == "input":
                unit.value = float(next(x))
                continue
            if unit.kind == "one":
                unit.value = 1.0
                continue
            if unit.kind == "factor":
                unit.value = unit.function([self.units[s].value for s in unit.reads])
                continue
            factors = [self.units[a].value if a >= 0 else 1.0 for a in unit.all_factors()]
            terms = [
                self.units[s].value * coefficient * factor * (self.weights[key] if key else 1.0)
                for (s, key, coefficient), factor in zip(unit.edges, factors, strict=True)
            ]
            if unit.kind == "max":
                unit.chosen = max(range(len(terms)), key=terms.__getitem__)
                unit.value = terms[unit.chosen]
            else:
                shift = self.units[unit.shift].value if unit.shift >= 0 else 0.0
                unit.value = unit.scale * sum(terms) + unit.bias + shift
                if unit.kind == "relu":
                    unit.value = max(unit.value, 0.0)

    def paths(self, output: int):
        """Every path to ``output``: (input unit, weight keys, fixed value, a_p^2, its value with all gates open).

        a_p is the product of its gates and factors in the last run.
        """
        stack = [(output, (), 1.0, 1.0, 1.0)]
        while stack:
            at, keys, fixed, gates, opened = stack.pop()
            unit = self.units[at]
            if unit.kind in ("input", "one"):
                yield at, keys, fixed, gates, opened
                continue
            if unit.kind == "relu" and unit.value <= 0:
                gates = 0.0
            for index, ((source, key, coefficient), a) in enumerate(zip(unit.edges, unit.all_factors(), strict=True)):
                passed = gates if unit.kind != "max" or index == unit.chosen else 0.0
                held = opened
                if a >= 0:
                    passed, held = passed * self.units[a].value ** 2, held * self.units[a].opened
                keys_here = (*keys, key) if key else keys
                stack.append((source, keys_here, fixed * coefficient * unit.scale, passed, held))


def measure(network: Network, samples, outputs, kept=None):
    """By the definitions, path by path.

    Returns ``(||J_v^f||_F^2, ||J_theta^v||_F^2, Eq. 9 scores by weight key, joint scores by weight key)``.
    A path with a pruned weight is none. The scores: R = sum_k (sum_n g^k(x_n^2)) h^k, S_j = dR/d(theta_j^2) theta_j^2,
    which is the sum over the paths through j of c_k v_p^2 (once for each time the path uses j).
    """
    kept = kept or (lambda key: True)
    count = defaultdict(float)  # output -> sum_n sum over paths a_p^2 x_p^2
    joint = defaultdict(float)
    for x in samples:
        network.run(x)
        for k in outputs:
            for source, keys, fixed, gates, _ in network.paths(k):
                if gates and all(kept(key) for key in keys):
                    squared = gates * network.units[source].value ** 2
                    count[k] += squared
                    value = math.prod(network.weights[key] ** 2 for key in keys) * fixed**2 * squared
                    for key in keys:
                        joint[key] += value
    theta_norm = 0.0
    scores = defaultdict(float)
    for k in outputs:
        for _, keys, fixed, _, opened in network.paths(k):
            if not all(kept(key) for key in keys):
                continue
            squares = [network.weights[key] ** 2 for key in keys]
            coefficient = (fixed * opened) ** 2
            value = math.prod(squares) * coefficient
            for index, key in enumerate(keys):
                scores[key] += count[k] * value
                theta_norm += math.prod(squares[:index] + squares[index + 1 :]) * coefficient
    return sum(count.values()), theta_norm, dict(scores), dict(joint)


def measure_open(network: Network, outputs, power, kept=None):
    """With all gates open and an input of ones: h^k = sum over paths |v_p|**power per output, and its scores by key."""
    kept = kept or (lambda key: True)
    values = []
    scores = defaultdict(float)
    for k in outputs:
        total = 0.0
        for _, keys, fixed, _, opened in network.paths(k):
            if all(kept(key) for key in keys):
                value = abs(math.prod(network.weights[key] for key in keys) * fixed * opened) ** power
                total += value
                for key in keys:
                    scores[key] += value
        values.append(total)
    return values, dict(scores)


def _variance(values) -> float:
    mean = sum(values) / len(values)
    return sum((v - mean) ** 2 for v in values) / len(values)


def _softmax_entry(place, width):
    """Of [query, key, key, ...], each of ``width`` numbers: the weight of the key at ``place``."""

    def entry(numbers):
        query, keys = numbers[:width], [numbers[i : i + width] for i in range(width, len(numbers), width)]
        scores = [math.exp(sum(q * k for q, k in zip(query, key, strict=True)) / math.sqrt(width)) for key in keys]
        return scores[place] / sum(scores)

    return entry
