"""How every figure is drawn: colours, sizes, a grid of panels, lines over seeds, the legend, and files."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pxframe.files.writing import replacing

if TYPE_CHECKING:  # matplotlib takes half a second to import
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Colours of lines on a white page and on a dark one. Neighbours differ for colour-blind readers too, and each has a
#: contrast of at least 3 to its page; that nothing hangs on colour alone, each line has a marker of its own.
LIGHT = ("#0072b2", "#c44e00", "#00795a", "#a8327d", "#7d6000", "#332288", "#00808a", "#882255", "#646464", "#0f3d5c")
DARK = ("#62b8f0", "#ff9d5c", "#3ccb9f", "#ec90cc", "#e3c24d", "#b0a4ff", "#5fd3dd", "#ff8fa8", "#bdbdbd", "#9fc9e8")
#: Colour of text and axes, and of what lies behind the lines, on a white page.
INK, FAINT = "#1b1b1a", "#d9d9d6"
_MARKERS = "osD^vPXp<>h"
#: Inches: a column of a paper, and its full width.
_COLUMN, _FULL = 3.4, 7.0
FONT = 8  # points
_LONGEST = 30  # characters of a name in a legend

#: What matplotlib is to draw with.
SETTINGS: dict[Any, Any] = {
    **{"font.size": FONT, "font.family": "DejaVu Sans", "axes.linewidth": 0.6, "axes.axisbelow": True},
    **{key: INK for key in ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")},
    **{"axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "pxframe", "pdf.fonttype": 42},
}


@contextmanager
def panels(
    titles: Sequence[str], rows: int = 1, height: float = 2.3, titled: bool = True
) -> Iterator[tuple[Figure, list[list[Axes]], dict[str, Any]]]:
    """A figure with a column of ``rows`` panels for each title, at most two columns side by side.

    Args:
        height: inches of a column.
        titled: whether the titles are drawn.

    Yields:
        the figure; the panels of each title, from top to bottom; and a dict to fill with what the legend shows by name.
        The legend is drawn below the panels when the block ends.
    """
    import matplotlib
    from matplotlib.figure import Figure

    wide = min(len(titles), 2)
    high = math.ceil(len(titles) / wide)
    with matplotlib.rc_context(SETTINGS):
        figure = Figure(figsize=(_FULL if wide == 2 else _COLUMN, height * high + 0.1), layout="constrained")
        grid = figure.subplots(high * rows, wide, squeeze=False)
        columns = [[grid[rows * (n // wide) + row][n % wide] for row in range(rows)] for n in range(high * wide)]
        handles: dict[str, Any] = {}
        yield figure, columns[: len(titles)], handles
        for column in columns[len(titles) :]:
            for panel in column:
                panel.set_axis_off()
        for column, title in zip(columns, titles, strict=False):
            if titled:
                column[0].set_title(title, loc="left", fontsize=FONT, fontweight="bold", parse_math=False)
            for panel in column:
                panel.grid(axis="y", color=FAINT, linewidth=0.5)
        _legend(figure, handles, wide)


def style(number: int) -> dict[str, Any]:
    """Colour and marker of the method of this number."""
    return {"color": LIGHT[number % len(LIGHT)], "marker": _MARKERS[number % len(_MARKERS)]}


def reference(panel: Axes, value: float, spread: float) -> Any:
    """The dense network: a dashed line across, and a band. Returns what the legend shows."""
    panel.axhspan(value - spread, value + spread, color=INK, alpha=0.1, linewidth=0)
    return panel.axhline(value, color=INK, linestyle=(0, (4, 3)), linewidth=0.9)


def through_means(panel: Axes, x: Sequence[float], mean: Sequence[float], spread: Sequence[float], number: int) -> Any:
    """A line through the means with a hollow sign at each, and a band of one deviation either way.

    Args:
        number: of the method.

    Returns:
        what the legend shows.
    """
    colour = style(number)["color"]
    low, high = ([m + sign * s for m, s in zip(mean, spread, strict=True)] for sign in (-1, 1))
    panel.fill_between(x, low, high, color=colour, alpha=0.16, linewidth=0)
    if len(x) == 1:  # a band has no width there
        panel.errorbar(x, mean, spread, color=colour, linewidth=1, capsize=3)
    # Empty, so that equal results and the seeds' dots show through.
    hollow: dict[str, Any] = {"markersize": 5.5, "markerfacecolor": "none", "markeredgewidth": 1.1}
    return panel.plot(x, mean, linewidth=1.2, **style(number), **hollow)[0]


def runs(panel: Axes, x: Sequence[float], y: Sequence[float], number: int, fallen: bool = False) -> None:
    """A dot for each run, or a cross for one that fell."""
    dots = panel.plot(x, y, linestyle="none")
    sign, size = ("x", 5) if fallen else ("o", 1.8)
    dots[0].set(marker=sign, markersize=size, color=style(number)["color"], markeredgewidth=1)


def save(figure: Figure, path: Path) -> None:
    """Write a figure as the suffix says, ``.svg``, ``.pdf`` or ``.png``; the same figure gives the same bytes.

    A second file of a figure keeps the layout of the first: finding one takes as long as drawing.
    """
    import matplotlib

    kind = path.suffix[1:]
    dates = {"svg": {"Date": None, "Creator": None}, "pdf": {"CreationDate": None, "Creator": None}, "png": {}}
    # Letters as outlines: a drawing in a paper must not depend on which fonts are installed.
    with matplotlib.rc_context({**SETTINGS, "svg.fonttype": "path"}), replacing(path) as scratch:
        figure.savefig(scratch, format=kind, metadata=dates[kind], dpi=200)
    figure.set_layout_engine("none")


def _legend(figure: Figure, handles: Mapping[str, Any], wide: int) -> None:
    """Below the panels. The names are set afterwards: matplotlib reads signs in them, and drops those with ``_``."""
    names = [_short(name) for name in handles]
    longest = max(map(len, names), default=1)
    columns = max(1, min(len(names), int(wide * 50 / (longest + 8))))
    figure.set_figheight(figure.get_figheight() + 0.17 * math.ceil(len(names) / columns))
    legend = figure.legend(
        list(handles.values()), ["x" * len(name) for name in names], loc="outside lower center", ncols=columns
    )
    legend.set_frame_on(False)
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set(text=name, parse_math=False)


def _short(name: str) -> str:
    """A long name loses its middle: its end tells it from others."""
    half = (_LONGEST - 1) // 2
    return name if len(name) <= _LONGEST else f"{name[:half]}…{name[-half:]}"
