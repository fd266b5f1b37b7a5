"""What the sections of the page show: rows, drawings and sentences, ready for the template."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pxframe.base.errors import some
from pxframe.job.results import label, means
from pxframe.report.data.compare import Answer, levels, percent
from pxframe.report.data.found import fell
from pxframe.report.data.tickets import Profile, Tickets
from pxframe.report.figures.curves import layer_figure, methods, metric_figure
from pxframe.report.figures.embedded import inline

Row = Mapping[str, Any]
Value = TypeVar("Value")

#: Levels of sparsity that are shown by layer, cells of the tables below them, and lines of the list of ill tickets: a
#: page of a thousand runs has to stay small.
_MOST_LEVELS, _MOST_CELLS, _MOST_ILL = 4, 4000, 100
#: Characters that the charts may take, and those of the layers.
_MOST_CHART, _MOST_LAYER = 250_000, 220_000


def tasks_of(rows: Sequence[Row]) -> list[str]:
    """The tasks, in the rows' order."""
    return list(dict.fromkeys(row["task"] for row in rows))


def number(value: float | None) -> str:
    """Two decimals, with a true minus sign."""
    return "" if value is None else f"{value:.2f}".replace("-", "−")


def fallen(rows: Sequence[Row]) -> list[str]:
    """Which runs collapsed or diverged, a sentence for each task and kind."""
    sentences = []
    for task in tasks_of(rows):
        for kind in ("collapsed", "diverged"):
            runs = [f"{r['variant']} (seed {r['seed']})" for r in rows if r["task"] == task and fell(r) == kind]
            if runs:
                sentences.append(f"{task}: {len(runs)} {kind}, and never ranked as best: {some(runs, most=6)}.")
    return sentences


def table(rows: Sequence[Row], compared: Sequence[Answer]) -> list[dict[str, Any]]:
    """Rows of means, with a note: best, or what became of runs."""
    best = {(a.task, a.best["variant"]) for a in compared if a.best is not None}
    shown = []
    for row in means(rows):
        ill = [f"{row[key]} {key}" for key in ("diverged", "collapsed") if row[key]]
        note = ", ".join(ill) or ("best" if (row["task"], row["variant"]) in best else "")
        finite = row["value"] is not None and math.isfinite(row["value"])
        shown.append({**row, "note": note, "label": label(row), "value": row["value"] if finite else None})
    return shown


def charts(rows: Sequence[Row], compared: Sequence[Answer]) -> list[dict[str, Any]]:
    """A figure for each task, as long as there is room; the page says where the others are."""
    found: list[dict[str, Any]] = []
    left = _MOST_CHART
    for place, task in enumerate(tasks_of(rows)):
        if left < 0:
            break
        figure = metric_figure(rows, [task], titled=False)
        if figure is None:
            continue
        mine = [answer for answer in compared if answer.task == task and answer.best is not None]
        levels_here = [answer.sparsity for answer in mine]
        told = [
            f"at {a.target or percent(a.sparsity, levels_here) + ' %'} {a.best['method']}, {number(a.best['value'])}"
            for a in mine
            if a.best
        ]
        what = label(next(row for row in rows if row["task"] == task))
        words = f"Lines of {what} against sparsity, one for each method. Best: {'; '.join(told) or 'none'}."
        svg = inline(figure, f"metric{place}", f"{task}: {what} against sparsity", words)
        left -= len(svg)
        if left >= 0:
            found.append({"task": task, "label": what, "svg": svg})
    return found


def layers(rows: Sequence[Row], tickets: Tickets) -> tuple[list[dict[str, Any]], int]:
    """Figures by layer: for some levels of each network that was pruned, with the numbers where there is room.

    Returns:
        the figures, and how many levels there are in all.
    """
    level_of, order = levels(rows), methods(rows)
    first = {variant: level for (_, variant), level in reversed(level_of.items())}
    groups: dict[tuple[str, float], list[Profile]] = {}
    for profile in tickets.profiles:
        level = level_of.get((profile.task, profile.variant), first[profile.variant])
        group = groups.setdefault((profile.task, level), [])
        if not group or group[0].names == profile.names:
            group.append(profile)
    found: list[dict[str, Any]] = []
    cells, left = 0, _MOST_LAYER
    for task in dict.fromkeys(task for task, _ in groups):
        mine = sorted(level for name, level in groups if name == task)
        for level in spread_out(mine):
            group = groups[task, level]
            what = f"{f'{task}: ' if task else ''}{percent(level, mine)} % sparsity"
            words = "Above, the share of weights kept in each layer; below, the share of output units that keep any."
            svg = inline(layer_figure(group, order), f"layers{len(found)}", what, words)
            left -= len(svg)
            if left < 0:
                return found, len(groups)
            cells += 2 * len(group) * len(group[0].names)
            found.append({"title": what, "svg": svg, "profiles": group if cells <= _MOST_CELLS else []})
    return found, len(groups)


def spread_out(found: Sequence[Value]) -> list[Value]:
    """At most four of the levels, the first and the last among them."""
    if len(found) <= _MOST_LEVELS:
        return list(found)
    return [found[round(i * (len(found) - 1) / (_MOST_LEVELS - 1))] for i in range(_MOST_LEVELS)]


def seconds(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Training times by task and method; collapsed tickets are not trained."""
    groups: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        if fell(row) != "collapsed":
            groups.setdefault((row["task"], row["method"]), []).append(row["seconds"])
    return [
        {
            **{"task": task, "method": method, "runs": len(found), "mean": statistics.mean(found)},
            **{"least": min(found), "most": max(found), "total": sum(found)},
        }
        for (task, method), found in groups.items()
    ]


def untrained(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Means of what tickets give before training, where the network kept its classifier."""
    told = [row for row in rows if row.get("zero_shot")]
    found = []
    for row in means(told):
        mine = [r["zero_shot"] for r in told if (r["task"], r["variant"]) == (row["task"], row["variant"])]
        values = {
            key: statistics.mean(one[key] for one in mine) if all(key in one for one in mine) else None
            for key in ("mask", "start")
        }
        found.append({**row, **values, "label": label(row)})
    return found


def ill(rows: Sequence[Row], tickets: Tickets) -> dict[str, Any]:
    """Runs that fell and tickets with empty layers, as lines of: task, variant, seed, what happened."""
    lines = []
    told = set()
    for row in rows:
        kind = fell(row)
        if kind == "collapsed":
            told.add((row["variant"], row["seed"]))
            lines.append((row["task"], row["variant"], row["seed"], f"collapsed: {row.get('collapsed') or 'no value'}"))
        elif kind:
            epoch = row.get("diverged")
            when = f"the loss was not finite in epoch {epoch}" if epoch else f"the result is {row['value']}"
            lines.append((row["task"], row["variant"], row["seed"], f"diverged: {when}"))
    for one in tickets.ill:
        parts = [f"nothing left of {some(one.emptied, most=8)}"] if one.emptied else []
        nearly = [f"{name} ({kept} kept)" for name, kept in one.nearly.items()]
        parts += [f"almost nothing left of {some(nearly, most=8)}"] if nearly else []
        if one.collapsed and (one.variant, one.seed) not in told:
            parts.append(f"collapsed: {one.collapsed}")
        if parts:
            lines.append((one.task, one.variant, one.seed, "; ".join(parts)))
    return {"lines": lines[:_MOST_ILL], "more": len(lines) - _MOST_ILL}
