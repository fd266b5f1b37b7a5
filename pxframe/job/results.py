"""What a job gives: rows of results, as a table to read and a file to compute with."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from pxframe.base.versions import versions
from pxframe.files.writing import write_json


def means(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row for each task and variant, in order of appearance: means over the seeds.

    ``deviation`` is the sample standard deviation of the value, None for one seed; ``seeds`` the number of values;
    ``diverged`` and ``collapsed`` the number of runs whose loss did not stay finite, and of tickets whose network no
    longer depended on its input. A collapsed run has no value; where all are, the mean is None.
    """
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["task"], row["variant"]), []).append(row)
    averaged = []
    for group in groups.values():
        values = [row["value"] for row in group if row["value"] is not None]
        finite = all(map(math.isfinite, values))  # a run that diverged may have an error of NaN
        averaged.append(
            {
                **group[0],
                "value": (statistics.mean(values) if finite else math.nan) if values else None,
                "deviation": statistics.stdev(values) if len(values) > 1 and finite else None,
                **{key: statistics.mean(row[key] for row in group) for key in ("sparsity", "prunable_left")},
                "seconds": statistics.mean(row["seconds"] for row in group),
                **_slim(group),
                "seeds": len(values),
                "diverged": sum(bool(row.get("diverged")) for row in group),
                "collapsed": sum(bool(row.get("collapsed")) for row in group),
            }
        )
    return averaged


def _slim(group: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """The mean shares of the dense network's cost, of the runs that were slimmed."""
    found = [row["slim"] for row in group if row.get("slim")]
    return {"slim": {kind: statistics.mean(one[kind] for one in found) for kind in found[0]}} if found else {}


def label(row: Mapping[str, Any]) -> str:
    """Name of a row's metric, with its unit, and with an arrow where lower is better: ``RMSE (px) ↓``."""
    unit = f" ({row['unit']})" if row.get("unit") else ""
    return f"{row['metric']}{unit}{'' if row.get('higher_is_better', True) else ' ↓'}"


def print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """One table on stdout: task x variant, with metric, sparsity, what is left, and seconds."""
    averaged = means(rows)
    shares = next((list(row["slim"]) for row in averaged if row.get("slim")), [])
    table = Table(box=None, pad_edge=False)
    for column in ("task", "variant"):
        table.add_column(column)
    for column in ("metric", "value", "sparsity", "prunable weights left", *shares, "seconds"):
        table.add_column(column, justify="right")
    previous = None
    for row in averaged:
        if previous not in (None, row["task"]):
            table.add_section()
        table.add_row(
            row["task"] if row["task"] != previous else "",
            row["variant"],
            label(row),
            _value(row),
            f"{row['sparsity']:.2%}",
            f"{row['prunable_left']:,.0f} of {row['prunable_total']:,}",
            *(f"{row['slim'][kind]:.1%}" if row.get("slim") else "" for kind in shares),
            f"{row['seconds']:.0f}",
        )
        previous = row["task"]
    width = None if Console().is_terminal else 140
    Console(width=width).print(table)


def _value(row: Mapping[str, Any]) -> str:
    if row["value"] is None:
        return "collapsed"
    spread = "" if row["deviation"] is None else f" ± {row['deviation']:.2f}"
    ill = [f"{row[key]} {key}" for key in ("diverged", "collapsed") if row[key]]
    return f"{row['value']:.2f}{spread}" + (f" ({', '.join(ill)})" if ill else "")


def write_results(path: Path, rows: Sequence[Mapping[str, Any]], **about: Any) -> None:
    """Write ``results.json``: the rows of every seed, and what they depend on."""
    write_json(path, {"rows": list(rows), "versions": versions(), **about})
