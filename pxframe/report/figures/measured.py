"""The figures of what was measured of tickets: spectra, widths by layer, and seconds and results by rounds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pxframe.evidence.spectrum import SOUND
from pxframe.job.results import label
from pxframe.report.data.found import fell
from pxframe.report.data.measured import mean_and_deviation
from pxframe.report.figures.curves import along_layers, layer_axes
from pxframe.report.figures.drawing import INK, panels, reference, runs, style, through_means

if TYPE_CHECKING:  # matplotlib takes half a second to import
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = Mapping[str, Any]
#: Rows by what heads their panel (:func:`pxframe.report.data.measured.by_level`).
Levels = Mapping[str, Sequence[Row]]

#: Points of a curve: a spectrum of a thousand eigenvalues shows no more with all of them.
_MOST_POINTS = 60


def spectrum_figure(levels: Levels, order: Sequence[str], titled: bool = True) -> Figure:
    """Eigenvalues against rank, both logarithmic: a line through the seeds' means of log10, a band of one deviation.

    The dense network is dashed. A rank at which a seed's eigenvalue is no more than rounding is not drawn.

    Args:
        order: names of all methods; their places are their colours.
    """
    with panels(list(levels), titled=titled) as (figure, columns, handles):
        for (panel,), rows in zip(columns, levels.values(), strict=True):
            for row in _firsts(rows, "variant"):
                ranks, mean, low, high = _curve([one for one in rows if one["variant"] == row["variant"]])
                dense = not row["sparsity"]
                colour = INK if dense else style(order.index(row["method"]))["color"]
                if low != high:
                    panel.fill_between(ranks, low, high, color=colour, alpha=0.12, linewidth=0)
                more: dict[str, Any] = {"linestyle": (0, (4, 3)), "zorder": 3}
                if not dense:
                    # Where curves are close, equal places of the markers would hide those below.
                    often = (order.index(row["method"]) % 9, 9)
                    more = {**style(order.index(row["method"])), "markersize": 3.5, "markevery": often}
                drawn = panel.plot(ranks, mean, **{"color": colour, "linewidth": 1.0, **more})
                handles[row["method"]] = drawn[0]
            panel.set_xscale("log")
            panel.set_yscale("log")
            panel.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
            panel.yaxis.set_major_formatter(lambda value, _: _power(value))
            panel.set_xlabel("rank of the eigenvalue, largest first")
            panel.set_ylabel("eigenvalue")
    return figure


def _curve(rows: Sequence[Row]) -> tuple[list[int], list[float], list[float], list[float]]:
    """Ranks, geometric means of the eigenvalues there, and these one deviation of log10 lower and higher."""
    kept = [[value for value in row["eigenvalues"] if value > SOUND * row["eigenvalues"][0]] for row in rows]
    last = min(map(len, kept))
    ranks = sorted({round(last ** (n / (_MOST_POINTS - 1))) for n in range(_MOST_POINTS)})
    found = [mean_and_deviation([math.log10(values[rank - 1]) for values in kept]) or (0.0, None) for rank in ranks]
    low, high = ([10 ** (mean + sign * (spread or 0)) for mean, spread in found] for sign in (-1, 1))
    return ranks, [10**mean for mean, _ in found], low, high


def _power(value: float) -> str:
    """``10⁵``."""
    return f"10{str(round(math.log10(value))).translate(str.maketrans('-0123456789', '⁻⁰¹²³⁴⁵⁶⁷⁸⁹'))}"


def width_figure(levels: Levels, order: Sequence[str], titled: bool = True) -> Figure:
    """By layer: the share of output units that keep a weight, and of those that keep one and lie on no path.

    Means over the seeds, a line for each method. Layers that a ticket has no mask for are left out of its line.
    """
    with panels(list(levels), rows=2, height=3.5, titled=titled) as (figure, columns, handles):
        for (kept, lost), rows in zip(columns, levels.values(), strict=True):
            names = list(dict.fromkeys(layer["name"] for row in rows for layer in row["layers"]))
            for row in _firsts(rows, "variant"):
                if row["sparsity"]:
                    number = order.index(row["method"])
                    shares = _shares([one for one in rows if one["variant"] == row["variant"]], names)
                    handles[row["method"]] = along_layers(kept, [share for share, _ in shares], number)
                    along_layers(lost, [share for _, share in shares], number)
            for panel in (kept, lost):
                panel.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.4g} %")
                top = max(1.04 * panel.get_ylim()[1], 0.1)
                panel.set_ylim(-0.04 * top, top)  # a marker at zero is not cut
            kept.set_ylabel("output units kept")
            lost.set_ylabel("kept, but on no path")
            layer_axes(kept, lost)
    return figure


def _shares(rows: Sequence[Row], names: Sequence[str]) -> list[tuple[float, float]]:
    """By layer, means over the rows: the share of units kept, and of units kept that are on no path."""
    found = []
    for name in names:
        layers = [layer for row in rows for layer in row["layers"] if layer["name"] == name]
        pairs = [(one["kept"] / one["units"], (one["kept"] - one["connected"]) / one["units"]) for one in layers]
        means = [statistics.mean(values) for values in zip(*pairs, strict=True)]
        found.append((means[0], means[1]) if means else (math.nan, math.nan))
    return found


def timing_figure(levels: Levels, order: Sequence[str], titled: bool = True) -> Figure:
    """Seconds to prune and results by rounds, as :func:`pxframe.report.figures.curves.metric_figure` draws results."""
    with panels(list(levels), rows=2, height=3.8, titled=titled) as (figure, columns, handles):
        for (seconds, result), rows in zip(columns, levels.values(), strict=True):
            dense = mean_and_deviation([row["value"] for row in rows if not row["sparsity"]])
            if dense is not None:
                name = next(row["method"] for row in rows if not row["sparsity"])
                handles[name] = reference(result, dense[0], dense[1] or 0)
            for family in _firsts([row for row in rows if row["sparsity"]], "family"):
                number = order.index(family["family"])
                mine = [row for row in rows if row["family"] == family["family"] and row["sparsity"]]
                for panel, key in ((seconds, "prune_seconds"), (result, "value")):
                    line = _against_rounds(panel, mine, key, number)
                    if line is not None:
                        handles[family["family"]] = line
            seconds.set_ylabel("seconds to prune")
            result.set_ylabel(label(rows[0]), parse_math=False)
            _rounds_axes(seconds, result, sorted({row["rounds"] for row in rows if row["sparsity"]}))
    return figure


def _against_rounds(panel: Axes, rows: Sequence[Row], key: str, number: int) -> Any:
    """Every run of a method, and a line through the means; None if there is no value."""
    drawn = [row for row in rows if row[key] is not None and math.isfinite(row[key])]
    points = {n: mean_and_deviation([row[key] for row in drawn if row["rounds"] == n]) for n in _rounds(drawn)}
    told = [(n, mean, spread or 0) for n, point in points.items() if point for mean, spread in [point]]
    if not told:
        return None
    for fallen in (False, True):
        own = [row for row in drawn if (key == "value" and bool(fell(row))) == fallen]
        runs(panel, [row["rounds"] for row in own], [row[key] for row in own], number, fallen)
    x, mean, spread = map(list, zip(*told, strict=True))
    return through_means(panel, x, mean, spread, number)


def _rounds(rows: Sequence[Row]) -> list[int]:
    return sorted({row["rounds"] for row in rows})


def _rounds_axes(seconds: Axes, result: Axes, rounds: Sequence[int]) -> None:
    """Logarithmic, with a tick at each number of rounds that has room for its name."""
    from matplotlib.ticker import LogLocator, NullLocator

    ticks: list[int] = []
    for number in rounds:
        if not ticks or math.log(number / ticks[-1]) > math.log(rounds[-1] / rounds[0]) / 12:
            ticks.append(number)
    for panel in (seconds, result):
        panel.set_xscale("log")
        panel.set_xlim(rounds[0] / 1.4, rounds[-1] * 1.4)
        panel.set_xticks(ticks, list(map(str, ticks)))
        panel.xaxis.set_minor_locator(NullLocator())
    seconds.tick_params(labelbottom=False)
    seconds.set_yscale("log")
    low, high = seconds.get_ylim()
    seconds.yaxis.set_major_locator(LogLocator(subs=(1.0, 3.0) if high < 1e4 * low else (1.0,)))
    seconds.yaxis.set_minor_locator(NullLocator())
    seconds.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    result.set_xlabel("rounds T")


def _firsts(rows: Sequence[Row], key: str) -> list[Row]:
    """The first row of each value of ``key``."""
    found: dict[str, Row] = {}
    for row in rows:
        found.setdefault(row[key], row)
    return list(found.values())
