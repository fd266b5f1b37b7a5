"""The figures of a job's results: metric against sparsity, and what is left of each layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pxframe.job.results import label, means
from pxframe.report.data.compare import percent
from pxframe.report.data.found import fell
from pxframe.report.data.tickets import Profile
from pxframe.report.figures.drawing import panels, reference, runs, style, through_means

if TYPE_CHECKING:  # matplotlib takes half a second to import
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = Mapping[str, Any]

_MOST_TICKS = 6


def methods(rows: Sequence[Row]) -> list[str]:
    """What prunes, in the order of the rows: a method's place is its colour and its marker in every figure."""
    return list(dict.fromkeys(row["method"] for row in rows if row["sparsity"]))


def has_place(row: Row) -> bool:
    """Whether a run can be drawn: it has a finite value, and weights are left."""
    return row["value"] is not None and math.isfinite(row["value"]) and row["prunable_left"] > 0


def drawn_tasks(rows: Sequence[Row]) -> list[str]:
    """The tasks that a pruned network has a finite result for."""
    return list(dict.fromkeys(row["task"] for row in rows if row["sparsity"] and has_place(row)))


def metric_figure(rows: Sequence[Row], tasks: Sequence[str], titled: bool = True) -> Figure | None:
    """Metric against sparsity by task: every run a dot, a line through the means, a band of one deviation either way.

    The axis is logarithmic in the density, and every point is at its true sparsity. A run that diverged is a cross, a
    dense network a dashed line. What has no finite value, or no weights, has no place.

    Args:
        titled: whether a panel is headed with its task's name.

    Returns:
        None if there is nothing to draw.
    """
    shown = [row for row in rows if has_place(row)]
    tasks = [task for task in drawn_tasks(rows) if task in tasks]
    if not tasks:
        return None
    with panels(tasks, titled=titled) as (figure, columns, handles):
        for (panel,), task in zip(columns, tasks, strict=True):
            _metric_panel(panel, [row for row in shown if row["task"] == task], methods(rows), handles)
    return figure


def _metric_panel(panel: Axes, mine: Sequence[Row], order: Sequence[str], handles: dict[str, Any]) -> None:
    averaged = means(mine)
    _sparsity_axis(panel, [1 - row["sparsity"] for row in averaged if row["sparsity"] and row["value"] is not None])
    draw_methods(panel, mine, order, lambda row: 1 - row["sparsity"], handles)
    panel.set_ylabel(label(mine[0]), parse_math=False)


def draw_methods(
    panel: Axes, mine: Sequence[Row], order: Sequence[str], place: Callable[[Row], float], handles: dict[str, Any]
) -> None:
    """A task's runs: dots, a line through the means of each method, and the dense network as a line across.

    Args:
        mine: the runs, each with a place.
        order: :func:`methods` of all rows.
        place: of a run or a mean along the axis.
        handles: what the legend shows is put here.
    """
    sound = [row for row in means(mine) if row["value"] is not None]
    for row in sound:
        if not row["sparsity"]:
            handles[row["method"]] = reference(panel, row["value"], row["deviation"] or 0)
    for number, method in enumerate(order):
        points = sorted((row for row in sound if row["method"] == method), key=place, reverse=True)
        if not points:
            continue
        x, values = [place(row) for row in points], [row["value"] for row in points]
        handles[method] = through_means(panel, x, values, [row["deviation"] or 0 for row in points], number)
        for fallen in (False, True):
            own = [row for row in mine if row["method"] == method and bool(fell(row)) == fallen]
            runs(panel, [place(row) for row in own], [row["value"] for row in own], number, fallen)


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

    with panels([""], rows=2, height=3.5, titled=False) as (figure, ((density, width),), handles):
        floor = min((d for profile in profiles for d in profile.density if d), default=0.1) / 2
        for profile in profiles:
            number = order.index(profile.method)
            x = range(1, len(profile.names) + 1)
            handles[profile.method] = along_layers(density, [d or floor for d in profile.density], number)
            along_layers(width, profile.width, number)
            empty = [n for n, d in zip(x, profile.density, strict=True) if not d]
            runs(density, empty, [floor] * len(empty), number, fallen=True)
        density.set_yscale("log")
        density.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
        density.yaxis.set_minor_locator(NullLocator())
        density.set_ylabel("density: weights kept")
        width.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
        width.set_ylim(-0.04, 1.04)
        width.set_ylabel("width: output units kept")
        layer_axes(density, width)
    return figure


def along_layers(panel: Axes, values: Sequence[float], number: int) -> Any:
    """A line over the layers in their order, with some markers. Returns what the legend shows."""
    often = max(1, len(values) // 8)
    more: dict[str, Any] = {"linewidth": 1.0, "markersize": 3.5, "markevery": often}
    return panel.plot(range(1, len(values) + 1), values, **style(number), **more)[0]


def layer_axes(*stacked: Axes) -> None:
    """The axes of panels on top of each other that show the same layers."""
    from matplotlib.ticker import MaxNLocator

    *upper, lowest = stacked
    for panel in upper:
        panel.sharex(lowest)
        panel.tick_params(labelbottom=False)
    lowest.set_xlabel("layer, from input to output")
    lowest.xaxis.set_major_locator(MaxNLocator(integer=True))
