"""The results for other programs: every run as CSV, and means with deviations as LaTeX."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

from pxframe.job.results import means
from pxframe.report.data.compare import Answer, levels, percent, target_text

Row = Mapping[str, Any]

#: The columns that every file has; ``metrics.NAME``, ``zero_shot.NAME``, ``slim.NAME``, ... follow if any.
COLUMNS = (
    *("task", "variant", "method", "seed", "metric", "unit", "higher_is_better", "value"),
    *("sparsity", "prunable_left", "prunable_total", "seconds", "epochs", "diverged", "collapsed"),
)
_NESTED = ("metrics", "zero_shot", "slim", "target")


def csv_text(rows: Sequence[Row]) -> str:
    """A line for each run, numbers in full; what a run has not is left empty."""
    more = dict.fromkeys(f"{key}.{name}" for key in _NESTED for row in rows for name in row.get(key) or {})
    out = io.StringIO()
    writer = csv.DictWriter(out, [*COLUMNS, *more], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        nested = {f"{key}.{name}": value for key in _NESTED for name, value in (row.get(key) or {}).items()}
        writer.writerow({**{key: row.get(key) for key in COLUMNS}, **nested})
    return out.getvalue()


_SPECIAL = {
    **{c: f"\\{c}" for c in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"},
}


def escaped(text: str) -> str:
    """``text`` for LaTeX, as it is read; what LaTeX takes for a command is written out."""
    return "".join(_SPECIAL.get(c, c) for c in text)


def latex_text(rows: Sequence[Row], answers: Sequence[Answer]) -> str:
    """A ``tabular`` for each task, methods by sparsity: mean, deviation over the seeds, and the best one in bold."""
    averaged, found = means(rows), levels(rows)
    best = {(a.task, a.best["variant"]) for a in answers if a.best is not None}
    parts = [
        r"% Needs \usepackage{booktabs}. Mean and standard deviation over the seeds; the best at a sparsity is bold."
    ]
    for task in dict.fromkeys(row["task"] for row in averaged):
        mine = [row for row in averaged if row["task"] == task]
        columns = sorted({found[task, row["variant"]] for row in mine if row["sparsity"]})
        cells: dict[str, dict[float, str]] = {}
        for row in mine:
            level = found[task, row["variant"]]
            cells.setdefault(row["method"], {})[level] = _cell(row, (task, row["variant"]) in best)
        targets = {found[task, row["variant"]]: escaped(target_text(row)) for row in mine}
        heads = [targets[level] or rf"{percent(level, columns)}\,\%" for level in columns]
        parts += ["", *_tabular(task, mine[0], dict(zip(columns, heads, strict=True)), cells)]
    return "\n".join(parts) + "\n"


def _tabular(task: str, row: Row, columns: Mapping[float, str], cells: Mapping[str, Mapping[float, str]]) -> list[str]:
    unit = f" ({escaped(row['unit'])})" if row.get("unit") else ""
    arrow = r"$\uparrow$" if row.get("higher_is_better", True) else r"$\downarrow$"
    wide = max(len(columns), 1)
    lines = [
        rf"% {' '.join(task.split())}",
        rf"\begin{{tabular}}{{l{'r' * wide}}}",
        r"\toprule",
        rf"{escaped(task)}: {escaped(row['metric'])}{unit} {arrow} & \multicolumn{{{wide}}}{{c}}{{sparsity}} \\",
        rf"method & {' & '.join(columns.values()) or 'none'} \\",
        r"\midrule",
    ]
    for method, own in cells.items():
        if 0.0 in own:  # all weights kept: it is at no level
            across = rf"\multicolumn{{{wide}}}{{c}}{{{own[0.0]}}}"
            lines.append(rf"{escaped(method)} (no weight pruned) & {across} \\")
        if own.keys() - {0.0}:
            lines.append(rf"{escaped(method)} & {' & '.join(own.get(level, '--') for level in columns)} \\")
    return [*lines, r"\bottomrule", r"\end{tabular}"]


def _cell(row: Row, best: bool) -> str:
    if row["value"] is None:
        return "collapsed"
    ill = [f"{row[key]} {key}" for key in ("diverged", "collapsed") if row[key]]
    note = f" ({', '.join(ill)})" if ill else ""
    if not math.isfinite(row["value"]):
        return f"diverged{note}"
    number = rf"\mathbf{{{row['value']:.2f}}}" if best else f"{row['value']:.2f}"
    spread = "" if row["deviation"] is None else rf" \pm {row['deviation']:.2f}"
    return f"${number}{spread}${note}"
