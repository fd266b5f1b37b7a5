"""The figure of a job: metric against sparsity, a panel for each task, a line for each method."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pxframe.base.files import replacing
from pxframe.job.results import label, means


def draw(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write a PNG: the density is on a logarithmic axis; bars are one standard deviation over the seeds.

    What keeps all weights is a dashed line. Collapsed tickets have no value and are not drawn.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullLocator

    # a density of zero has no place on the axis, nor has a value that is not finite
    averaged = [
        row for row in means(rows) if row["prunable_left"] and row["value"] is not None and math.isfinite(row["value"])
    ]
    tasks = list(dict.fromkeys(row["task"] for row in averaged))
    if not tasks:
        return
    methods = list(dict.fromkeys(row["method"] for row in averaged if row["sparsity"]))
    figure = Figure(figsize=(1.2 + 3.6 * len(tasks), 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(tasks), squeeze=False)[0]
    for panel, task in zip(panels, tasks, strict=True):
        mine = [row for row in averaged if row["task"] == task]
        levels = sorted({round(row["sparsity"], 4) for row in mine if row["sparsity"]})
        panel.set_xscale("log")
        densities = [1 - level for level in levels] or [1.0]
        panel.set_xlim(1.5 * max(densities), min(densities) / 1.5)  # sparser to the right
        for row in mine:
            if not row["sparsity"]:
                panel.axhline(row["value"], color="black", linestyle="--", linewidth=1, label=row["method"])
                spread = row["deviation"] or 0
                panel.axhspan(row["value"] - spread, row["value"] + spread, color="black", alpha=0.1, linewidth=0)
        for number, method in enumerate(methods):
            points = [row for row in mine if row["method"] == method and row["sparsity"]]
            panel.errorbar(
                [1 - row["sparsity"] for row in points],
                [row["value"] for row in points],
                [row["deviation"] or 0 for row in points],
                color=f"C{number}",
                marker="osD^vPX*<>"[number % 10],
                markerfacecolor="none",  # so that equal results do not hide one another
                linewidth=1.2,
                capsize=2,
                label=method,
            )
        panel.xaxis.set_minor_locator(NullLocator())
        panel.set_xticks([1 - level for level in levels], [f"{100 * level:g}" for level in levels])
        panel.set(title=task, xlabel="sparsity (%)", ylabel=label(mine[0]))
        panel.grid(axis="y", alpha=0.3)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", frameon=False)
    with replacing(path) as scratch:
        figure.savefig(scratch, format="png", dpi=150)
