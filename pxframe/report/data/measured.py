"""What the commands that measure tickets left in a work folder: spectra, widths, and times by rounds."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pxframe.base.errors import PxframeError, some
from pxframe.files.writing import read_json
from pxframe.job.claim import changed_settings
from pxframe.report.data.compare import joined, percent
from pxframe.report.data.found import RESULT, Needed, Row, checked

_NUMBER = (int, float)
_TICKET: Needed = {"seed": int, "variant": str, "method": str, "sparsity": _NUMBER}
_NEEDED: Mapping[str, Needed] = {
    "spectrum": {
        **{**_TICKET, "eigenvalues": list, "largest": _NUMBER},
        **{key: (*_NUMBER, type(None)) for key in ("relative_trace", "distance")},
    },
    "width": {
        **{**_TICKET, "layers": list, "depth": int, "layers_in_all": int},
        **{key: _NUMBER for key in ("kept", "connected", "narrowest")},
    },
    "timing": {**RESULT, "rounds": int, "prune_seconds": (*_NUMBER, type(None))},
}


@dataclass(frozen=True)
class Measured:
    """The rows of ``spectrum.json``, ``width.json`` and ``timing.json``, each for a ticket and a seed.

    Attributes:
        timing: rows of results with ``rounds`` and ``prune_seconds``. ``family`` is the method, whatever its rounds.
        images: how many the spectra are of; None if not known.
        settings: by the name of a file, those that it was made with, where it tells them.
        files: whether any of the files is there, damaged or not.
        notes: on files that are left out, a sentence each.
    """

    spectrum: list[Row] = field(default_factory=list)
    width: list[Row] = field(default_factory=list)
    timing: list[Row] = field(default_factory=list)
    images: int | None = None
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    files: bool = False
    notes: list[str] = field(default_factory=list)

    @property
    def rows(self) -> list[Row]:
        """All of them; the method of a time is its family."""
        return [*self.spectrum, *self.width, *({**row, "method": row["family"]} for row in self.timing)]


def read_measured(root: Path) -> Measured:
    """Read what is there; a file that is damaged or another program's is left out, and a note says so."""
    rows: dict[str, list[Row]] = {}
    settings: dict[str, dict[str, Any]] = {}
    notes: list[str] = []
    images = None
    files = [what for what in _NEEDED if (root / f"{what}.json").exists()]
    for what in files:
        file = root / f"{what}.json"
        try:
            about = read_json(file)
            rows[what] = _checked(what, about.get("rows"), repr(str(file)))
        except PxframeError as error:
            notes.append(f"What `pxframe {what}` measured is left out: {error}.")
            continue
        if isinstance(about.get("settings"), dict):
            settings[what] = about["settings"]
        if what == "spectrum" and type(about.get("images")) is int:
            images = about["images"]
    return Measured(**rows, images=images, settings=settings, files=bool(files), notes=notes)


def outdated(measured: Measured, job: Mapping[str, Any]) -> list[str]:
    """A sentence for each file that was made with other settings than those in ``job.json``, where both are known."""
    sentences = []
    for what, settings in measured.settings.items():
        changed = changed_settings(settings, job) if job else []
        if changed:
            sentences.append(
                f"What `pxframe {what}` measured was made with other settings than the job's present ones: "
                f"{some(changed)}. Run it again with `--resume`."
            )
    return sentences


def _checked(what: str, rows: Any, where: str) -> list[Row]:
    if not isinstance(rows, list) or not rows:
        raise PxframeError(f"{where} has no list 'rows'; remove it, or run `pxframe {what}` again")
    for number, row in enumerate(rows):
        checked(row, f"{where}: row {number}", _NEEDED[what])
        if not _SOUND[what](row):
            raise PxframeError(f"{where}: row {number} holds values that cannot be; run `pxframe {what}` again")
    if what == "timing":
        return [{**row, "family": _family(row)} for row in rows]
    return rows


def _finite(*values: Any) -> bool:
    return all(isinstance(v, _NUMBER) and abs(v) < 1e300 for v in values)


def _whole(low: int, *values: Any) -> bool:
    return all(type(v) is int and low <= v < 1 << 53 for v in values)


def _is_spectrum(row: Row) -> bool:
    told = [row[key] for key in ("relative_trace", "distance") if row[key] is not None]
    values = row["eigenvalues"]
    return bool(values) and _finite(row["sparsity"], row["largest"], *told, *values) and values[0] > 0


def _is_width(row: Row) -> bool:
    names = (layer.get("name") if isinstance(layer, dict) else None for layer in row["layers"])
    if not row["layers"] or not all(isinstance(name, str) for name in names):
        return False
    counts = ([layer.get(key) for key in ("connected", "kept", "units")] for layer in row["layers"])
    ordered = all(_whole(0, *some) and some == sorted(some) and some[-1] for some in counts)
    return ordered and _finite(*(row[key] for key in ("sparsity", "kept", "connected", "narrowest")))


def _is_time(row: Row) -> bool:
    seconds = row["prune_seconds"]
    return (
        _whole(1, row["rounds"])
        and _finite(row["sparsity"], row["seconds"])
        and (seconds is None or 0 < seconds < 1e300)
    )


_SOUND: Mapping[str, Callable[[Row], bool]] = {"spectrum": _is_spectrum, "width": _is_width, "timing": _is_time}


def _family(row: Row) -> str:
    """A method's name says its rounds where they are not the usual ones."""
    return re.sub(rf"-rounds={row['rounds']}(?=-|$)", "", row["method"])


def by_variant(rows: Iterable[Row]) -> dict[tuple[str, str], list[Row]]:
    """The rows of each task and variant, by both; a row without a task has the empty string."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.get("task", ""), row["variant"]), []).append(row)
    return groups


def by_level(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows at each task and level of sparsity, by a title; the dense network's stand at each.

    Tasks are in the rows' order, and the densest level of each comes first.
    """
    groups = by_variant(rows)
    averaged = [
        {**some[0], "task": task, "sparsity": statistics.mean(row["sparsity"] for row in some)}
        for (task, _), some in groups.items()
    ]
    found, result = joined(averaged), {}
    for task in dict.fromkeys(task for task, _ in groups):
        mine = {variant: found[task, variant] for name, variant in groups if name == task}
        levels = sorted(set(mine.values()) - {0.0})
        for level in levels:
            title = f"{f'{task}: ' if task else ''}{percent(level, levels)} % sparsity"
            here = [row for variant, own in mine.items() if own in (0.0, level) for row in groups[task, variant]]
            result[title] = here
    return result


def mean_and_deviation(values: Sequence[float | None]) -> tuple[float, float | None] | None:
    """Of the finite values: their mean, and the standard deviation where there are several; None if there are none."""
    sound = [value for value in values if value is not None and math.isfinite(value)]
    if not sound:
        return None
    return statistics.mean(sound), statistics.stdev(sound) if len(sound) > 1 else None
