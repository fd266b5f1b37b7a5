"""Which method is best at each sparsity, and how sure that is, given what the seeds tell."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pxframe.job.results import means
from pxframe.report.data.found import fell

Row = Mapping[str, Any]

#: Two densities belong to one level of sparsity if they differ by at most this share: channels cannot hit it exactly.
_SAME = 0.02
#: Confidence of the intervals.
CONFIDENCE = 0.95
#: With more seeds, the signs are too many to try them all; the interval is enough by then.
_MOST_FLIPPED = 14


@dataclass(frozen=True)
class Difference:
    """The best method minus the next, over the seeds that both have; positive where the best one is better.

    Attributes:
        values: one for each seed.
        low: lower end of the 95 % t-interval of the mean; None for fewer than two seeds.
        high: the upper end.
        p: exact two-sided p-value when the signs are flipped in every way; None for fewer than two seeds, or many.
    """

    values: tuple[float, ...]
    low: float | None = None
    high: float | None = None
    p: float | None = None

    @property
    def mean(self) -> float:
        """Of the values; NaN if there are none."""
        return statistics.mean(self.values) if self.values else math.nan

    @property
    def sure(self) -> bool:
        """Whether the interval excludes zero."""
        return self.low is not None and self.low > 0

    @property
    def verdict(self) -> str:
        """In words, without the numbers."""
        if not self.values:
            return "no seed in common: cannot be told"
        if len(self.values) == 1:
            return "one seed: cannot be told"
        if not any(self.values):
            return f"equal in all {len(self.values)} seeds"
        return "sure" if self.sure else "not sure: the seeds differ as much"


@dataclass(frozen=True)
class Answer:
    """The best method for a task at one level of sparsity.

    Attributes:
        sparsity: of the level, the mean over its tickets.
        target: what the tickets of the level aimed at in place of a sparsity, as ``flops 50 %``; else empty.
        best: row of means, as :func:`pxframe.job.results.means` gives it; None if no method's runs are all sound.
        second: that of the next best method, or None.
        difference: between the two, or None if there is no second.
        left_out: rows of means of methods with a collapsed or diverged run: these are never ranked.
        dense: row of means of the network with all weights, or None.
    """

    task: str
    sparsity: float
    best: Row | None
    second: Row | None
    difference: Difference | None
    left_out: tuple[Row, ...]
    dense: Row | None
    target: str = ""


def levels(rows: Sequence[Row]) -> dict[tuple[str, str], float]:
    """The level of sparsity that each task's variants belong to: the mean sparsity there; 0 for all weights kept.

    Two variants of one method are never at one level. Tickets that aim at a share of the cost are at one level if they
    have the same target, whatever their sparsities.
    """
    return joined(means(rows))


def joined(averaged: Sequence[Row]) -> dict[tuple[str, str], float]:
    """:func:`levels` of rows that are means: each has a task, a variant, a method and a sparsity."""
    found: dict[tuple[str, str], float] = {}
    groups: list[list[Row]] = []
    aimed: dict[tuple[str, str], list[Row]] = {}
    for row in sorted(averaged, key=lambda row: row["sparsity"]):
        if not row["sparsity"]:
            found[row["task"], row["variant"]] = 0.0
            continue
        if target := target_text(row):
            aimed.setdefault((row["task"], target), []).append(row)
            continue
        near = bool(groups) and 1 - row["sparsity"] >= (1 - groups[-1][0]["sparsity"]) * (1 - _SAME)
        if near and all((row["task"], row["method"]) != (one["task"], one["method"]) for one in groups[-1]):
            groups[-1].append(row)
        else:
            groups.append([row])
    for group in [*groups, *aimed.values()]:
        level = statistics.mean(row["sparsity"] for row in group)
        found |= {(row["task"], row["variant"]): level for row in group}
    return found


def target_text(row: Row) -> str:
    """``flops 50 %`` for a ticket that aimed at half of the multiply-accumulates; the empty string without a target."""
    return ", ".join(f"{kind} {100 * share:.4g} %" for kind, share in (row.get("target") or {}).items())


def percent(sparsity: float, beside: Iterable[float] = ()) -> str:
    """``90``, ``98.2``; with more places only where two would say that nothing is left.

    Args:
        beside: other sparsities; more places are told also where one of these would read the same.
    """
    for places in (2, 5, 8, 11):
        text = f"{100 * sparsity:.{places}f}"
        alike = any(other != sparsity and f"{100 * other:.{places}f}" == text for other in beside)
        if not alike and not (float(text) == 100 and sparsity < 1):
            break
    return text.rstrip("0").rstrip(".")


def answers(rows: Sequence[Row]) -> list[Answer]:
    """One for each task and level, in the tasks' order, the densest level first."""
    averaged, found = means(rows), levels(rows)
    result = []
    for task in dict.fromkeys(row["task"] for row in averaged):
        mine = [row for row in averaged if row["task"] == task]
        dense = next((row for row in mine if not row["sparsity"]), None)
        for level in sorted({found[task, row["variant"]] for row in mine} - {0.0}):
            here = [row for row in mine if found[task, row["variant"]] == level]
            result.append(_answer(task, level, here, dense, rows))
    return result


def _answer(task: str, level: float, here: Sequence[Row], dense: Row | None, rows: Sequence[Row]) -> Answer:
    runs = {row["variant"]: [r for r in rows if (r["task"], r["variant"]) == (task, row["variant"])] for row in here}
    ill = tuple(row for row in here if any(map(fell, runs[row["variant"]])))
    up = here[0].get("higher_is_better", True)
    ranked = sorted((row for row in here if row not in ill), key=lambda row: row["value"], reverse=up)
    best, second = (*ranked, None, None)[:2]
    compared = None
    if best is not None and second is not None:
        values = [{run["seed"]: run["value"] for run in runs[row["variant"]]} for row in (best, second)]
        shared = sorted(values[0].keys() & values[1].keys())
        compared = difference([(1 if up else -1) * (values[0][seed] - values[1][seed]) for seed in shared])
    return Answer(task, level, best, second, compared, ill, dense, target_text(here[0]))


def difference(values: Sequence[float]) -> Difference:
    """What paired differences say: their t-interval, and the exact test that flips their signs."""
    count = len(values)
    if count < 2:
        return Difference(tuple(values))
    import numpy as np
    from scipy import stats

    mean, error = statistics.mean(values), statistics.stdev(values) / math.sqrt(count)
    reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, count - 1)) * error
    p = None
    if count <= _MOST_FLIPPED:
        flipped = stats.permutation_test((values,), np.mean, permutation_type="samples", n_resamples=2**count)
        p = float(flipped.pvalue)
    return Difference(tuple(values), mean - reach, mean + reach, p)


def lead(found: Sequence[Answer]) -> str:
    """The answer in one or two sentences."""
    decided = [answer for answer in found if answer.best is not None]
    if not decided:
        return "No comparison can be made: no pruned network has sound results."
    wins: dict[str, int] = {}
    for answer in decided:
        assert answer.best is not None
        wins[answer.best["method"]] = wins.get(answer.best["method"], 0) + 1
    parts = [f"{method} in {won}" for method, won in sorted(wins.items(), key=lambda item: -item[1])]
    if len(decided) == 1:
        text = f"{next(iter(wins))} is best."
    elif len(parts) == 1:
        every = "both" if len(decided) == 2 else f"all {len(decided)}"
        text = f"{next(iter(wins))} is best in {every} comparisons."
    else:
        text = f"Of {len(decided)} comparisons, each a task at one sparsity, the best method is {_listed(parts)}."
    compared = [answer.difference for answer in decided if answer.difference is not None]
    if not compared:
        return f"{text} There was no second method to compare it with."
    if all(len(one.values) < 2 for one in compared):
        return f"{text} How sure that is cannot be told from one seed."
    sure = sum(one.sure for one in compared)
    if len(compared) == 1:
        what = "larger" if sure else "not larger"
        return f"{text} Its lead over the next method is {what} than chance between seeds explains."
    which = "none" if not sure else "all" if sure == len(compared) else str(sure)
    return f"{text} In {which} of these the lead over the next method is larger than chance between seeds explains."


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
