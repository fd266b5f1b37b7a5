"""What a transfer gives: rows of results, as a table to read and a file to compute with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from pxframe.files import write_json
from pxframe.versions import versions


def print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """One table on stdout: task x variant, with metric, sparsity, prunable weights left and seconds."""
    table = Table(box=None, pad_edge=False)
    for column in ("task", "variant"):
        table.add_column(column)
    for column in ("metric", "value", "sparsity", "prunable weights left", "seconds"):
        table.add_column(column, justify="right")
    previous = None
    for row in rows:
        if previous not in (None, row["task"]):
            table.add_section()
        table.add_row(
            row["task"] if row["task"] != previous else "",
            row["variant"],
            row["metric"],
            f"{row['value']:.2f}",
            f"{row['sparsity']:.2%}",
            f"{row['prunable_left']:,} of {row['prunable_total']:,}",
            f"{row['seconds']:.0f}",
        )
        previous = row["task"]
    width = None if Console().is_terminal else 110
    Console(width=width).print(table)


def write_results(path: Path, rows: Sequence[Mapping[str, Any]], **about: Any) -> None:
    """Write ``results.json``: the rows, and what they depend on."""
    write_json(path, {"rows": list(rows), "versions": versions(), **about})
