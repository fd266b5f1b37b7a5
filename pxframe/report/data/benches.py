"""What ``pxframe bench`` measured of a job's tickets: the numbers for the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pxframe.base.errors import PxframeError
from pxframe.files.writing import read_json

#: What a row must have: numbers, and quartiles of times.
_NUMBERS = ("parameters", "nonzero", "macs", "disk", "compressed", "memory")
_QUARTILES = ("latency_seconds", "images_per_second")


def read_benches(root: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Every network of every file ``*-bench.json`` beside a ticket of the job.

    Returns:
        a row for each network: its numbers, the ``ticket`` and ``seed``, the ``name`` of the network (dense, masked,
        ...), and ``setting``, where it was measured; and a note on each file that cannot be read.
    """
    rows, notes = [], []
    for file in sorted(root.glob("seed-*/tickets/**/*-bench.json")):
        try:
            found = read_json(file)
            own = [_row(file, root, name, row, found["setting"]) for name, row in found["networks"].items()]
        except (PxframeError, KeyError, TypeError, ValueError, AttributeError):
            notes.append(f"{file.relative_to(root)} is damaged, or of another version, and left out.")
        else:
            rows += own
    return rows, notes


def _row(file: Path, root: Path, name: str, row: dict[str, Any], setting: dict[str, Any]) -> dict[str, Any]:
    quartiles = {key: [float(value) for value in row[key]] for key in _QUARTILES}
    if any(len(values) != 3 for values in quartiles.values()):
        raise ValueError(f"{file}: three quartiles")
    device, threads, batch = (str(setting[key]) for key in ("device", "threads", "batch"))
    return {
        **{key: float(row[key]) for key in _NUMBERS},
        **quartiles,
        "seed": file.relative_to(root).parts[0].removeprefix("seed-"),
        "ticket": file.name.removesuffix("-bench.json"),
        "name": str(name),
        "setting": f"{device}, {threads} thread{'' if threads == '1' else 's'}, batches of {batch}",
    }
