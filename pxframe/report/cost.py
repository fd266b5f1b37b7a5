"""Results against what slim networks cost: the figure, and the numbers beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from pxframe.job.results import label, means
from pxframe.report.figures.curves import draw_methods, has_place, methods
from pxframe.report.figures.drawing import panels
from pxframe.report.figures.embedded import inline
from pxframe.report.sections import number

if TYPE_CHECKING:  # matplotlib takes half a second to import
    from matplotlib.figure import Figure

Row = Mapping[str, Any]

#: Panels from top to bottom: what they show along the axis.
_AXES = {"latency": "time of an image, % of dense", "flops": "multiply-accumulates, % of dense"}


def cost_figure(rows: Sequence[Row], titled: bool = True) -> Figure | None:
    """Metric against the share of the dense network's time, and of its multiply-accumulates, by task.

    Drawn as :func:`pxframe.report.figures.curves.metric_figure` draws the metric against sparsity.

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
            for panel, (kind, words) in zip(column, _AXES.items(), strict=True):
                draw_methods(panel, mine, methods(rows), partial(_percent, kind), handles)
                panel.set_xlabel(words)
                panel.set_ylabel(label(mine[0]), parse_math=False)
    return figure


def _percent(kind: str, row: Row) -> float:
    return 100 * float(row["slim"][kind])


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
