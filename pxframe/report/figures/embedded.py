"""A figure as part of a web page: its text is text, and its colours are the page's, light or dark."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING

from markupsafe import Markup

from pxframe.report.figures.drawing import DARK, FAINT, INK, LIGHT, SETTINGS

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def inline(figure: Figure, key: str, title: str, description: str) -> Markup:
    """The figure as an ``<svg>`` element.

    Args:
        key: letters and digits that no other figure of the page has; the names of the drawing's parts begin with it.
        title: its name, for those who do not see it.
        description: what it shows, in words.
    """
    import matplotlib

    out = io.BytesIO()
    with matplotlib.rc_context({**SETTINGS, "svg.fonttype": "none"}):
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    drawing = out.getvalue().decode("utf-8")
    drawing = drawing[drawing.index("<svg") :]
    box = re.search(r'viewBox="([^"]*)"', drawing)
    assert box is not None
    body = drawing[drawing.index(">") + 1 :]
    # A style in the drawing would hold for the whole page.
    body = re.sub(r"<(metadata|style)\b.*?</\1>\s*|<!--.*?-->\s*|clip-path=\"[^\"]*\" ", "", body, flags=re.DOTALL)
    body = re.sub(r'\bid="', f'id="{key}-', body)
    body = re.sub(r'(href="#|url\(#)', rf"\g<1>{key}-", body).replace("xlink:href", "href")
    names = {INK: "ink", FAINT: "faint", **{colour: f"series-{n}" for n, colour in enumerate(LIGHT)}}
    body = re.sub("|".join(names), lambda found: f"var(--{names[found[0]]})", body)
    # Text in the drawing's own font would be another font than the page's.
    body = body.replace("'DejaVu Sans'", "system-ui")
    body = re.sub(r"(\d\.\d\d)\d+", r"\1", body)
    body = re.sub(r"\n\s*", "\n", body)
    return Markup(
        '<svg viewBox="{}" role="img" aria-labelledby="{}-title {}-text">\n<title id="{}-title">{}</title>\n'
        '<desc id="{}-text">{}</desc>\n{}'
    ).format(box[1], key, key, key, title, key, description, Markup(body))


def colours() -> Markup:
    """Style rules: the colours of lines on a light page and on paper, and on a dark page."""
    light, dark = ("".join(f"--series-{n}:{c};" for n, c in enumerate(scheme)) for scheme in (LIGHT, DARK))
    return Markup(f":root{{{light}}}@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}")
