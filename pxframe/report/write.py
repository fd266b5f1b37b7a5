"""The report of a work folder: one web page, and beside it CSV, LaTeX and figures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from pxframe.base.errors import some
from pxframe.files.writing import replacing
from pxframe.job.results import label
from pxframe.plugin.task import Task
from pxframe.report import sections
from pxframe.report.cost import cost_figure, cost_section
from pxframe.report.data.benches import read_benches
from pxframe.report.data.compare import Answer, answers, lead, percent
from pxframe.report.data.found import Found, missing_sentences, read
from pxframe.report.data.measured import Measured, outdated, read_measured
from pxframe.report.data.tickets import read_tickets
from pxframe.report.evidence import drawn, evidence
from pxframe.report.figures.curves import drawn_tasks, methods, metric_figure
from pxframe.report.figures.drawing import save
from pxframe.report.figures.embedded import colours
from pxframe.report.figures.pictures import galleries
from pxframe.report.tables import csv_text, latex_text

Row = Mapping[str, Any]


def write_report(root: Path, tasks: Mapping[str, Task] | None = None) -> Path:
    """Write the report of a job, finished or not, into its work folder.

    ``report.html`` is whole in itself; ``results.csv`` has every run, ``results.tex`` the means. Where there is
    something to draw, ``results.svg`` and ``results.pdf`` are the figure, and ``cost.svg`` and ``cost.pdf`` the one of
    slim networks. What ``spectrum``, ``width`` and ``timing`` measured is a section of the page, and has figures of
    these names. The same results give the same files.

    Args:
        root: the work folder.
        tasks: the job's tasks by name, where they are built already; they draw the pictures.

    Returns:
        the page's path.

    Raises:
        PxframeError: there are no results, or they are damaged; or the folder cannot be written.
    """
    measured = read_measured(root)
    found = read(root, without_results=measured.files)
    compared = answers(found.rows)
    order = methods([*found.rows, *measured.rows])
    figures = {
        "results": metric_figure(found.rows, sections.tasks_of(found.rows)),
        "cost": cost_figure(found.rows),
        **drawn(measured, order),
    }
    files = [
        (figure, root / f"{name}{suffix}")
        for name, figure in figures.items()
        if figure is not None
        for suffix in (".svg", ".pdf")
    ]
    for figure, file in files:
        save(figure, file)
    texts = {}
    if found.rows:
        texts = {"results.csv": csv_text(found.rows), "results.tex": latex_text(found.rows, compared)}
    beside = [*texts, *(file.name for _, file in files)]
    texts["report.html"] = _page(found, compared, tasks, measured, order, beside)
    for name, text in texts.items():
        with replacing(root / name) as scratch:
            scratch.write_text(text, encoding="utf-8")
    return root / "report.html"


def _page(
    found: Found,
    compared: Sequence[Answer],
    tasks: Mapping[str, Task] | None,
    measured: Measured,
    order: Sequence[str],
    beside: Sequence[str],
) -> str:
    tickets = read_tickets(found)
    benches, damaged = read_benches(found.root)
    notes = [*found.notes, *tickets.notes, *measured.notes, *outdated(measured, found.job), *damaged]
    by_layer, profiled = sections.layers(found.rows, tickets)
    environment = Environment(
        loader=PackageLoader("pxframe.report", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "number": sections.number, "label": label}
    source = environment.loader
    assert source is not None
    parts = {name: Markup(source.get_source(environment, file)[0]) for name, file in _PARTS.items()}
    page: str = environment.get_template("report.html").render(
        **parts,
        colours=colours(),
        title=_title(found),
        found=found,
        lead=lead(compared),
        answers=compared,
        seeds=sorted({row["seed"] for row in (*found.rows, *measured.rows)}),
        evidence=evidence(measured, order),
        images=measured.images,
        beside=beside,
        methods=methods(found.rows),
        tasks=sections.tasks_of(found.rows),
        warnings=[*missing_sentences(found.missing), *sections.fallen(found.rows), *notes],
        table=sections.table(found.rows, compared),
        charts=sections.charts(found.rows, compared),
        drawable=len(drawn_tasks(found.rows)),
        layers=by_layer,
        profiled=profiled,
        absent=some(tickets.absent, most=8),
        seconds=sections.seconds(found.rows),
        cost=cost_section(found.rows),
        benches=benches,
        untrained=sections.untrained(found.rows),
        ill=sections.ill(found.rows, tickets),
        galleries=galleries(found, compared, tasks),
        **_provenance(found),
        settings=json.dumps(found.job, indent=1, ensure_ascii=False) if found.job else "",
    )
    return page


_PARTS = {"style": "report.css", "script": "report.js"}


def _title(found: Found) -> str:
    return Path(str(found.about.get("config") or found.job.get("file") or found.root.resolve().name)).stem


def _provenance(found: Found) -> dict[str, Any]:
    """The config's path, the device, threads, versions, and when ``results.json`` was written; empty if not known."""
    file, versions = found.root / "results.json", found.about.get("versions")
    written = datetime.fromtimestamp(file.stat().st_mtime, timezone.utc) if file.exists() else None
    return {
        "config": found.about.get("config") or found.job.get("file") or "",
        "device": found.about.get("device") or found.job.get("device") or "",
        "threads": found.job.get("threads") or "",
        "versions": versions if isinstance(versions, dict) else {},
        "written": written.strftime("%Y-%m-%d %H:%M UTC") if written else "",
    }
