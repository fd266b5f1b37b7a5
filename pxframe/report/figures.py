"""The figures of a job, for the page and for papers: metric against sparsity, and what is left of each layer."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pxframe.base.files import replacing
from pxframe.job.results import label, means
from pxframe.report.compare import percent
from pxframe.report.found import fell
from pxframe.report.tickets import Profile

if TYPE_CHECKING:  # matplotlib takes half a second to import
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = Mapping[str, Any]

#: Colours of lines on a white page and on a dark one. Neighbours differ for colour-blind readers too, and each has a
#: contrast of at least 3 to its page; that nothing hangs on colour alone, each line has a marker of its own.
LIGHT = ("#0072b2", "#c44e00", "#00795a", "#a8327d", "#7d6000", "#332288", "#00808a", "#882255", "#646464", "#0f3d5c")
DARK = ("#62b8f0", "#ff9d5c", "#3ccb9f", "#ec90cc", "#e3c24d", "#b0a4ff", "#5fd3dd", "#ff8fa8", "#bdbdbd", "#9fc9e8")
#: Colour of text and axes, and of what lies behind the lines, on a white page.
INK, FAINT = "#1b1b1a", "#d9d9d6"
_MARKERS = "osD^vPXp<>h"
#: Inches: a column of a paper, and its full width.
_COLUMN, _FULL = 3.4, 7.0
_FONT = 8  # points
_LONGEST = 30  # characters of a name in a legend
_MOST_TICKS = 6

#: What matplotlib is to draw with.
SETTINGS: dict[Any, Any] = {
    **{"font.size": _FONT, "font.family": "DejaVu Sans", "axes.linewidth": 0.6, "axes.axisbelow": True},
    **{key: INK for key in ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")},
    **{"axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "pxframe", "pdf.fonttype": 42},
}


def methods(rows: Sequence[Row]) -> list[str]:
    """What prunes, in the order of the rows: a method's place is its colour and its marker in every figure."""
    return list(dict.fromkeys(row["method"] for row in rows if row["sparsity"]))


def _has_place(row: Row) -> bool:
    return row["value"] is not None and math.isfinite(row["value"]) and row["prunable_left"] > 0


def drawn_tasks(rows: Sequence[Row]) -> list[str]:
    """The tasks that a pruned network has a finite result for."""
    return list(dict.fromkeys(row["task"] for row in rows if row["sparsity"] and _has_place(row)))


def metric_figure(rows: Sequence[Row], tasks: Sequence[str], titled: bool = True) -> Figure | None:
    """Metric against sparsity by task: every run a dot, a line through the means, a band of one deviation either way.

    The axis is logarithmic in the density, and every point is at its true sparsity. A run that diverged is a cross, a
    dense network a dashed line. What has no finite value, or no weights, has no place.

    Args:
        titled: whether a panel is headed with its task's name.

    Returns:
        None if there is nothing to draw.
    """
    shown = [row for row in rows if _has_place(row)]
    tasks = [task for task in drawn_tasks(rows) if task in tasks]
    if not tasks:
        return None
    wide = min(len(tasks), 2)
    high = math.ceil(len(tasks) / wide)
    with _drawing((_FULL if wide == 2 else _COLUMN, 2.3 * high + 0.1)) as figure:
        panels = figure.subplots(high, wide, squeeze=False).flat
        handles: dict[str, Any] = {}
        for panel, task in zip(panels, tasks, strict=False):
            _metric_panel(panel, [row for row in shown if row["task"] == task], methods(rows), handles)
            if titled:
                panel.set_title(task, loc="left", fontsize=_FONT, fontweight="bold", parse_math=False)
        for panel in list(panels)[len(tasks) :]:
            panel.set_axis_off()
        _legend(figure, handles, wide)
    return figure


def _metric_panel(panel: Axes, mine: Sequence[Row], order: Sequence[str], handles: dict[str, Any]) -> None:
    sound = [row for row in means(mine) if row["value"] is not None]
    _sparsity_axis(panel, [1 - row["sparsity"] for row in sound if row["sparsity"]])
    for row in sound:
        if not row["sparsity"]:
            spread = row["deviation"] or 0
            handles[row["method"]] = panel.axhline(row["value"], color=INK, linestyle=(0, (4, 3)), linewidth=0.9)
            panel.axhspan(row["value"] - spread, row["value"] + spread, color=INK, alpha=0.1, linewidth=0)
    for number, method in enumerate(order):
        points = sorted((row for row in sound if row["method"] == method), key=lambda row: row["sparsity"])
        if not points:
            continue
        colour, marker = LIGHT[number % len(LIGHT)], _MARKERS[number % len(_MARKERS)]
        x = [1 - row["sparsity"] for row in points]
        spreads = [row["deviation"] or 0 for row in points]
        low, high = ([row["value"] + sign * s for row, s in zip(points, spreads, strict=True)] for sign in (-1, 1))
        panel.fill_between(x, low, high, color=colour, alpha=0.16, linewidth=0)
        if len(points) == 1:  # a band has no width there
            panel.errorbar(x, [points[0]["value"]], spreads, color=colour, linewidth=1, capsize=3)
        # Empty, so that equal results and the seeds' dots show through.
        style: dict[str, Any] = {"marker": marker, "markersize": 5.5, "markerfacecolor": "none", "markeredgewidth": 1.1}
        (handles[method],) = panel.plot(x, [row["value"] for row in points], color=colour, linewidth=1.2, **style)
        for fallen, sign in ((False, "o"), (True, "x")):
            runs = [row for row in mine if row["method"] == method and bool(fell(row)) == fallen]
            dots = panel.plot([1 - row["sparsity"] for row in runs], [row["value"] for row in runs], linestyle="none")
            dots[0].set(marker=sign, markersize=1.8 if sign == "o" else 5, color=colour, markeredgewidth=1)
    panel.set_ylabel(label(mine[0]), parse_math=False)
    panel.grid(axis="y", color=FAINT, linewidth=0.5)


def _sparsity_axis(panel: Axes, densities: Sequence[float]) -> None:
    """Sparser to the right, a tick at the true sparsities, as many as there is room for."""
    from matplotlib.ticker import NullLocator

    panel.set_xscale("log")
    widest, least = max(densities), min(densities)
    panel.set_xlim(min(1.3 * widest, 1 + widest / 10) if widest > least else 1.5 * widest, least / 1.3)
    span, ticks = math.log(1.3 * widest / (least / 1.3)), [widest]
    for density in sorted(set(densities), reverse=True):
        if math.log(ticks[-1] / density) > span / _MOST_TICKS / 1.5:
            ticks.append(density)
    panel.xaxis.set_minor_locator(NullLocator())
    panel.set_xticks(ticks, [percent(1 - tick) for tick in ticks])
    panel.set_xlabel("sparsity (%)")


def layer_figure(profiles: Sequence[Profile], order: Sequence[str]) -> Figure:
    """Density and width of each layer at one level of sparsity, a line for each method; an emptied layer is a cross.

    Args:
        profiles: tickets of networks with the same layers.
        order: :func:`methods` of all rows.
    """
    from matplotlib.ticker import NullLocator

    with _drawing((_COLUMN, 3.6)) as figure:
        density, width = figure.subplots(2, 1, sharex=True)
        handles: dict[str, Any] = {}
        floor = min((d for profile in profiles for d in profile.density if d), default=0.1) / 2
        for profile in profiles:
            number = order.index(profile.method)
            colour, marker = LIGHT[number % len(LIGHT)], _MARKERS[number % len(_MARKERS)]
            x = range(1, len(profile.names) + 1)
            often = max(1, len(x) // 8)
            style = {"color": colour, "linewidth": 1.0, "marker": marker, "markersize": 3.5, "markevery": often}
            (handles[profile.method],) = density.plot(x, [d or floor for d in profile.density], **style)
            width.plot(x, profile.width, **style)
            empty = [n for n, d in zip(x, profile.density, strict=True) if not d]
            density.plot(empty, [floor] * len(empty), linestyle="none", color=colour, marker="x", markersize=5)
        density.set_yscale("log")
        density.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
        density.yaxis.set_minor_locator(NullLocator())
        width.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
        density.set_ylabel("density: weights kept")
        width.set_ylim(-0.04, 1.04)
        width.set_ylabel("width: output units kept")
        width.set_xlabel("layer, from input to output")
        width.xaxis.get_major_locator().set_params(integer=True)
        for panel in (density, width):
            panel.grid(axis="y", color=FAINT, linewidth=0.5)
        _legend(figure, handles, 1)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write a figure as the suffix says, ``.svg``, ``.pdf`` or ``.png``; the same figure gives the same bytes."""
    import matplotlib

    kind = path.suffix[1:]
    dates = {"svg": {"Date": None, "Creator": None}, "pdf": {"CreationDate": None, "Creator": None}, "png": {}}
    # Letters as outlines: a drawing in a paper must not depend on which fonts are installed.
    with matplotlib.rc_context({**SETTINGS, "svg.fonttype": "path"}), replacing(path) as scratch:
        figure.savefig(scratch, format=kind, metadata=dates[kind], dpi=200)


@contextmanager
def _drawing(size: tuple[float, float]) -> Iterator[Figure]:
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(SETTINGS):
        yield Figure(figsize=size, layout="constrained")


def _legend(figure: Figure, handles: Mapping[str, Any], wide: int) -> None:
    """Below the panels. The names are set afterwards: matplotlib reads signs in them, and drops those with ``_``."""
    names = [_short(name) for name in handles]
    longest = max(map(len, names), default=1)
    columns = max(1, min(len(names), int(wide * 58 / (longest + 7))))
    figure.set_figheight(figure.get_figheight() + 0.17 * math.ceil(len(names) / columns))
    legend = figure.legend(
        list(handles.values()), ["x" * len(name) for name in names], loc="outside lower center", ncols=columns
    )
    legend.set_frame_on(False)
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set(text=name, parse_math=False)


def _short(name: str) -> str:
    """A long name loses its middle: its end tells it from others."""
    half = (_LONGEST - 1) // 2
    return name if len(name) <= _LONGEST else f"{name[:half]}…{name[-half:]}"
