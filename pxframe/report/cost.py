"""Results against what slim networks cost: the figure, and the numbers beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pxframe.job.results import label, means
from pxframe.report.drawing import panels, reference, runs, through_means
from pxframe.report.embedded import inline
from pxframe.report.figures import has_place, methods
from pxframe.report.found import fell
from pxframe.report.sections import number

if TYPE_CHECKING:  # matplotlib takes half a second to import
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = Mapping[str, Any]

#: Panels from top to bottom: what they show along the axis.
_AXES = {"latency": "time of an image, % of dense", "flops": "multiply-accumulates, % of dense"}


def cost_figure(rows: Sequence[Row], titled: bool = True) -> Figure | None:
    """Metric against the share of the dense network's time, and of its multiply-accumulates, by task.

    Drawn as :func:`pxframe.report.figures.metric_figure` draws the metric against sparsity.

    Returns:
        None if no slim network has a finite result.
    """
    shown = [row for row in rows if row.get("slim") and has_place(row)]
    tasks = list(dict.fromkeys(row["task"] for row in shown if row["sparsity"]))
    if not tasks:
        return None
    with panels(tasks, rows=2, height=3.8, titled=titled) as (figure, columns, handles):
        for column, task in zip(columns, tasks, strict=True):
            mine = [row for row in shown if row["task"] == task]
            for panel, kind in zip(column, _AXES, strict=True):
                _panel(panel, mine, kind, methods(rows), handles)
    return figure


def _panel(panel: Axes, rows: Sequence[Row], kind: str, order: Sequence[str], handles: dict[str, Any]) -> None:
    averaged = means(rows)
    for row in averaged:
        if not row["sparsity"]:
            handles[row["method"]] = reference(panel, row["value"], row["deviation"] or 0)
    for place, method in enumerate(order):
        points = sorted((r for r in averaged if r["method"] == method and r["sparsity"]), key=lambda r: r["slim"][kind])
        if not points:
            continue
        x, values = [100 * row["slim"][kind] for row in points], [row["value"] for row in points]
        handles[method] = through_means(panel, x, values, [row["deviation"] or 0 for row in points], place)
        for fallen in (False, True):
            own = [r for r in rows if r["method"] == method and r["sparsity"] and bool(fell(r)) == fallen]
            runs(panel, [100 * r["slim"][kind] for r in own], [r["value"] for r in own], place, fallen)
    panel.set_xlabel(_AXES[kind])
    panel.set_ylabel(label(rows[0]), parse_math=False)


def cost_section(rows: Sequence[Row]) -> dict[str, Any]:
    """The page's section on slim networks; empty if there are none.

    Returns:
        ``svg`` (None if nothing can be drawn) and ``table``: a row for each task and variant, means over the seeds.
    """
    slim = [row for row in rows if row.get("slim")]
    if not slim:
        return {}
    figure = cost_figure(rows)
    words = "Lines of the metric against time and multiply-accumulates, one for each method; the table has the numbers."
    svg = None if figure is None else inline(figure, "cost", "Results of slim networks against their cost", words)
    table = [
        {
            **{key: row[key] for key in ("task", "variant", "seeds")},
            **{kind: f"{100 * share:.1f}" for kind, share in row["slim"].items()},
            "label": label(row),
            "result": _result(row),
        }
        for row in means(slim)
    ]
    return {"svg": svg, "table": table}


def _result(row: Row) -> str:
    spread = "" if row["deviation"] is None else f" ± {number(row['deviation'])}"
    return "–" if row["value"] is None else number(row["value"]) + spread
