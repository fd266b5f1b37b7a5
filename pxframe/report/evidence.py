"""The sections on what was measured of tickets: drawings, tables and sentences, ready for the template."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pxframe.base.errors import some
from pxframe.job.results import label
from pxframe.report.data.found import fell
from pxframe.report.data.measured import Measured, by_level, by_variant, mean_and_deviation
from pxframe.report.figures.embedded import inline
from pxframe.report.figures.measured import spectrum_figure, timing_figure, width_figure
from pxframe.report.sections import number, spread_out

if TYPE_CHECKING:  # matplotlib takes half a second to import
    from matplotlib.figure import Figure

Row = Mapping[str, Any]

#: Characters that the drawings of each section may take.
_MOST_DRAWN = 90_000
#: By the name of the command: what draws, and what is seen, in words.
_DRAWN: Mapping[str, tuple[Callable[..., Any], str]] = {
    "spectrum": (spectrum_figure, "Eigenvalues of the tangent kernel against their rank, a line for each method."),
    "width": (
        width_figure,
        "By layer, above, the share of output units that keep a weight; below, of those that besides are on no path.",
    ),
    "timing": (timing_figure, "Against the number of rounds, above, the seconds to prune; below, the result."),
}


def drawn(measured: Measured, order: Sequence[str]) -> dict[str, Figure]:
    """The figures at the size of a paper, some levels on one sheet, by the name of their command.

    Args:
        order: names of all methods, those of the measured rows included.
    """
    levels = {what: _shown(getattr(measured, what)) for what in _DRAWN}
    return {what: draw(levels[what], order) for what, (draw, _) in _DRAWN.items() if levels[what]}


def _shown(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """At most four levels, the first and the last among them: more are no figure of a paper, and slow to draw."""
    levels = by_level(rows)
    return {title: levels[title] for title in spread_out(list(levels))}


def evidence(measured: Measured, order: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What the template shows of each measurement that is there, by the name of its command.

    Args:
        order: as for :func:`drawn`.
    """
    tables = {"spectrum": _spectrum, "width": _width, "timing": _timing}
    found = {}
    for what, table in tables.items():
        rows = getattr(measured, what)
        if rows:
            found[what] = {
                **{"charts": _charts(what, rows, order), "in_file": len(_shown(rows)), "levels": len(by_level(rows))},
                **{"seeds": len({row["seed"] for row in rows}), **table(rows)},
            }
    return found


def _charts(what: str, rows: Sequence[Row], order: Sequence[str]) -> list[dict[str, Any]]:
    """Drawings of the levels that the file shows, as long as there is room on the page."""
    draw, words = _DRAWN[what]
    left = _MOST_DRAWN
    found: list[dict[str, Any]] = []
    for title, here in _shown(rows).items():
        svg = inline(draw({title: here}, order, titled=False), f"{what}{len(found)}", title, words)
        left -= len(svg)
        if left < 0:
            break
        found.append({"title": title, "svg": svg})
    return found


def _told(rows: Sequence[Row], key: str, text: Callable[[float], str]) -> str:
    """Mean and deviation over the seeds; a dash where there is no value."""
    found = mean_and_deviation([row[key] for row in rows])
    if found is None:
        return "–"
    mean, spread = found
    return text(mean) if spread is None else f"{text(mean)} ± {text(spread)}"


def _small(value: float) -> str:
    return f"{value:.3f}"


def _share(value: float) -> str:
    return f"{100 * value:.1f}"


def _spectrum(rows: Sequence[Row]) -> dict[str, Any]:
    closest: dict[str, tuple[str, float]] = {}
    for title, here in by_level(rows).items():
        means = {
            some[0]["variant"]: found[0]
            for some in by_variant(row for row in here if row["sparsity"]).values()
            if (found := mean_and_deviation([row["distance"] for row in some])) is not None
        }
        if means:
            best = min(means, key=lambda variant: means[variant])
            closest[best] = (f"at {title.removesuffix(' sparsity')} {_method(here, best)}", means[best])
    table = [
        {
            **{"method": some[0]["method"], "sparsity": some[0]["sparsity"], "variant": some[0]["variant"]},
            **{"distance": _told(some, "distance", number), "trace": _told(some, "relative_trace", _small)},
            **{"largest": _told(some, "largest", "{:.2e}".format), "seeds": len(some)},
            "closest": some[0]["variant"] in closest,
        }
        for some in by_variant(rows).values()
    ]
    return {"table": table, "closest": "; ".join(f"{who} ({number(value)})" for who, value in closest.values())}


def _method(rows: Sequence[Row], variant: str) -> str:
    name: str = next(row["method"] for row in rows if row["variant"] == variant)
    return name


def _width(rows: Sequence[Row]) -> dict[str, Any]:
    table, cut = [], []
    for group in by_variant(rows).values():
        lost = [{"lost": sum(layer["kept"] - layer["connected"] for layer in row["layers"])} for row in group]
        units = sum(layer["units"] for layer in group[0]["layers"])
        table.append(
            {
                **{"method": group[0]["method"], "sparsity": group[0]["sparsity"], "seeds": len(group)},
                **{key: _told(group, key, _share) for key in ("kept", "connected", "narrowest")},
                "lost": f"{_told(lost, 'lost', '{:.1f}'.format)} of {units:,}",
                "depth": f"{_told(group, 'depth', '{:.1f}'.format)} of {group[0]['layers_in_all']}",
            }
        )
        cut += [f"{r['variant']} (seed {r['seed']})" for r in group if r["depth"] < r["layers_in_all"]]
    return {"table": table, "cut": some(cut, most=8)}


def _timing(rows: Sequence[Row]) -> dict[str, Any]:
    table = []
    for some_rows in by_variant(rows).values():
        first = some_rows[0]
        ill = [kind for kind in map(fell, some_rows) if kind]
        notes = [f"{ill.count(kind)} {kind}" for kind in dict.fromkeys(ill)]
        table.append(
            {
                **{"task": first["task"], "method": first["family"], "sparsity": first["sparsity"]},
                **{"rounds": first["rounds"], "seconds": _told(some_rows, "prune_seconds", number)},
                **{"result": _told(some_rows, "value", number), "label": label(first), "seeds": len(some_rows)},
                "note": ", ".join(notes),
            }
        )
    return {"table": table}
