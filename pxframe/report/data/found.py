"""What a job left in its work folder: rows of results, its settings, and what is missing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pxframe.base.errors import PxframeError, some
from pxframe.files.writing import read_json
from pxframe.job.made import read_row
from pxframe.job.places import work_folder

Row = Mapping[str, Any]

#: What a row must have, and of which type.
Needed = Mapping[str, type | tuple[type, ...]]
RESULT: Needed = {
    "task": str,
    "variant": str,
    "method": str,
    "metric": str,
    "seed": int,
    "value": (int, float, type(None)),
    "sparsity": (int, float),
    "prunable_left": int,
    "prunable_total": int,
    "seconds": (int, float),
}


@dataclass(frozen=True)
class Found:
    """What is in a work folder.

    Attributes:
        root: the folder.
        rows: one for each run: a task, a variant and a seed.
        about: what ``results.json`` says beside its rows: config, seeds, device, versions. Empty where there is none.
        job: the settings of the job as last begun, from ``job.json``; empty where there is none.
        missing: runs that the job was to make and that have no result: task, variant and seed.
        notes: what else a reader should know, a sentence each.
    """

    root: Path
    rows: list[Row]
    about: dict[str, Any] = field(default_factory=dict)
    job: dict[str, Any] = field(default_factory=dict)
    missing: list[tuple[str, str, int]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def seeds(self) -> list[int]:
        """All seeds that have a row, in order."""
        return sorted({row["seed"] for row in self.rows})


def read(root: Path, without_results: bool = False) -> Found:
    """Read the work folder of a job, finished or not.

    Rows come from ``results.json``. Of what is not in it yet, as the job goes on or was stopped, each finished run's
    own ``result.json`` is read, if it was made with the job's present settings.

    Args:
        without_results: whether a folder is accepted in which no run is finished.

    Raises:
        PxframeError: there is no such folder, nothing in it is finished, or ``results.json`` is damaged.
    """
    root = work_folder(root)
    notes: list[str] = []
    job = _job(root, notes)
    about, rows = _results(root / "results.json")
    rows += _unlisted(root, job, rows, notes)
    if not rows and not without_results:
        raise PxframeError(
            f"{root} holds no results yet: no run is finished; run `pxframe transfer CONFIG --work-dir {root} --resume`"
        )
    return Found(root, rows, about, job, _missing(job, rows), notes)


def _job(root: Path, notes: list[str]) -> dict[str, Any]:
    file = root / "job.json"
    if not file.exists():
        notes.append("There is no job.json: the settings are not known, nor whether runs are missing.")
        return {}
    try:
        job = read_json(file)
    except PxframeError as error:
        notes.append(f"The settings are not known, nor whether runs are missing: {error}.")
        return {}
    if isinstance(job.get("tasks"), dict) and isinstance(job.get("seeds"), list):
        return job
    notes.append(f"The settings are not known, nor whether runs are missing: {file} is no record of a job.")
    return {}


def _results(file: Path) -> tuple[dict[str, Any], list[Row]]:
    if not file.exists():
        return {}, []
    about = read_json(file)
    rows = about.pop("rows", None)
    if not isinstance(rows, list):
        raise PxframeError(f"{str(file)!r} has no list 'rows'; remove it: finished runs are read from their own files")
    for number, row in enumerate(rows):
        checked(row, f"{str(file)!r}: row {number}")
    return about, rows


def checked(row: Any, where: str, needed: Needed = RESULT) -> Row:
    """``row``, if it is one of a job's results, or has else what is needed.

    Raises:
        PxframeError: something is missing in it, or is of another type.
    """
    if not isinstance(row, dict):
        raise PxframeError(f"{where} is no row of results; restore or remove the file, and make the report again")
    for key, kind in needed.items():
        if key not in row or isinstance(row[key], bool) or not isinstance(row[key], kind):
            raise PxframeError(
                f"{where} has {'no' if key not in row else 'a wrong'} {key!r}; restore or remove the file, and make "
                f"the report again"
            )
    return row


def _unlisted(root: Path, job: Mapping[str, Any], listed: Sequence[Row], notes: list[str]) -> list[Row]:
    """Rows of finished runs that ``results.json`` does not have, of the tasks, seeds and tickets of the job."""
    have = {(row["task"], row["variant"], row["seed"]) for row in listed}
    variants, stale = job.get("variants"), 0
    found: list[Row] = []
    for task, config in job.get("tasks", {}).items():
        for seed in job["seeds"]:
            for file in sorted((root / f"seed-{seed}" / task).glob("*/result.json")):
                variant = file.parent.name
                if (task, variant, seed) in have or (variants is not None and variant not in variants):
                    continue
                try:
                    row, recipe = read_row(file)
                    checked(row, str(file))
                except PxframeError as error:
                    notes.append(f"A result is left out: {error}.")
                    continue
                if not isinstance(recipe, dict) or recipe.get("task") != config:
                    stale += 1
                    continue
                found.append(row)
    if stale:
        notes.append(f"{stale} finished runs are left out: they were made with other settings of their task.")
    tasks = list(job.get("tasks", {}))
    order = variants if variants is not None else sorted({row["variant"] for row in found})
    return sorted(found, key=lambda r: (r["seed"], tasks.index(r["task"]), order.index(r["variant"])))


def _missing(job: Mapping[str, Any], rows: Sequence[Row]) -> list[tuple[str, str, int]]:
    """Runs that the job was to make and has no row of; of an older ``job.json``, as far as its rows tell."""
    have = {(row["task"], row["variant"], row["seed"]) for row in rows}
    tasks = job.get("chosen") or list(dict.fromkeys(row["task"] for row in rows))
    expected = []
    for task in tasks if job else ():
        seen = dict.fromkeys(row["variant"] for row in rows if row["task"] == task)
        variants = job.get("variants") or seen or dict.fromkeys(row["variant"] for row in rows)
        expected += [(task, variant, seed) for seed in job["seeds"] for variant in variants]
    return [run for run in expected if run not in have]


def missing_sentences(missing: Sequence[tuple[str, str, int]]) -> list[str]:
    """What is missing, a sentence for each task."""
    sentences = []
    for task in dict.fromkeys(task for task, _, _ in missing):
        runs = [f"{variant} (seed {seed})" for name, variant, seed in missing if name == task]
        are = "run is" if len(runs) == 1 else "runs are"
        sentences.append(f"{task}: {len(runs)} {are} missing: {some(runs, most=6)}.")
    return sentences


def fell(row: Row) -> str:
    """What became of a run that gave no sound value: ``"collapsed"``, ``"diverged"``; else the empty string."""
    if row.get("collapsed") or row["value"] is None:
        return "collapsed"
    return "diverged" if row.get("diverged") or not math.isfinite(row["value"]) else ""
