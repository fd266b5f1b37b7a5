"""The figures: points at their true places, files whole and always the same, colours that can be seen."""

import math
import re
from xml.etree import ElementTree

import pytest
import report_jobs as jobs
from PIL import Image

from pxframe.report.data.tickets import Profile
from pxframe.report.figures.curves import layer_figure, methods, metric_figure
from pxframe.report.figures.drawing import DARK, INK, LIGHT, save
from pxframe.report.figures.embedded import colours, inline


def lines(panel):
    return [(list(map(float, line.get_xdata())), list(map(float, line.get_ydata())), line) for line in panel.lines]


def test_every_run_is_a_dot_at_its_true_sparsity_and_lines_go_through_the_means():
    rows = [
        jobs.row(v, m, s, seed)
        for m, s, found in (("px", 0.8, (90, 94)), ("px", 0.9037, (80, 81)), ("snip", 0.9, (70, 72)))
        for seed, v in enumerate(found)
    ]
    panel = metric_figure(rows, ["digits"]).axes[0]
    drawn = lines(panel)
    means = [(x, y) for x, y, line in drawn if line.get_linestyle() == "-"]
    assert ([1 - 0.8, 1 - 0.9037], [92, 80.5]) in means
    assert ([1 - 0.9], [71]) in means
    dots = [(x, y) for x, y, line in drawn if line.get_linestyle() == "None" and line.get_marker() == "o"]
    assert sorted(p for x, y in dots for p in zip(x, y, strict=True)) == sorted(
        (1 - row["sparsity"], row["value"]) for row in rows
    )
    assert panel.get_xscale() == "log"
    left, right = panel.get_xlim()
    assert left > 1 - 0.8 > 1 - 0.9037 > right  # sparser to the right
    labels = dict(zip(panel.get_xticks(), [t.get_text() for t in panel.get_xticklabels()], strict=True))
    assert labels[1 - 0.8] == "80"
    assert set(labels) <= {1 - 0.8, 1 - 0.9, 1 - 0.9037}


def test_the_band_is_one_deviation_and_a_single_level_has_a_bar():
    panel = metric_figure(jobs.several(), ["digits"]).axes[0]
    bands = [path.vertices[:, 1] for band in panel.collections for path in band.get_paths()]
    assert any((band.min(), band.max()) == pytest.approx((81 - 1, 91.33333 + 1.52753), abs=1e-4) for band in bands)
    alone = metric_figure([jobs.row(v, seed=s) for s, v in enumerate((80, 84))], ["digits"]).axes[0]
    (bar,) = [path.vertices[:, 1] for b in alone.collections for path in b.get_paths() if len(path.vertices) == 2]
    assert bar.max() - bar.min() == pytest.approx(2 * math.sqrt(8))


def test_what_diverged_is_a_cross_and_what_collapsed_is_not_there():
    rows = [
        jobs.row(50, "px"),
        jobs.row(40, "px", seed=1, diverged=2),
        jobs.row(None, "snip", collapsed="no path"),
        jobs.row(math.nan, "imp", diverged=1),
    ]
    figure = metric_figure(rows, ["digits"])
    crosses = [(x, y) for x, y, line in lines(figure.axes[0]) if line.get_marker() == "x" and x]
    assert crosses == [([1 - 0.9], [40])]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["px"]
    assert metric_figure(rows[2:], ["digits"]) is None


def test_files_are_of_the_size_of_a_paper_and_always_the_same(tmp_path):
    for rows, inches in ((jobs.several(), 3.4), ([*jobs.several(), *jobs.several("scenes")], 7.0)):
        for suffix in ("svg", "pdf", "png"):
            for name in ("one", "two"):
                save(metric_figure(rows, list(dict.fromkeys(r["task"] for r in rows))), tmp_path / f"{name}.{suffix}")
            assert (tmp_path / f"one.{suffix}").read_bytes() == (tmp_path / f"two.{suffix}").read_bytes()
        drawing = ElementTree.parse(tmp_path / "one.svg").getroot()
        assert float(drawing.get("width").removesuffix("pt")) == pytest.approx(72 * inches)
        box = re.search(rb"/MediaBox \[ ?([\d. ]+)\]", (tmp_path / "one.pdf").read_bytes())
        assert float(box[1].split()[2]) == pytest.approx(72 * inches)
        with Image.open(tmp_path / "one.png") as image:
            assert image.width == pytest.approx(200 * inches, abs=1)


@pytest.mark.parametrize("length", [2, 5, 9, 21, 50])
def test_the_legend_is_no_wider_than_the_figure(length):
    for tasks in (["a"], ["a", "b"]):
        names = [f"{n}{'-method-option=value' * 3}"[:length] for n in range(10)]
        figure = metric_figure([jobs.row(50.0, name, task=task) for task in tasks for name in names], tasks)
        figure.draw_without_rendering()
        assert figure.legends[0].get_window_extent().width <= figure.bbox.width


def test_names_are_drawn_as_they_are():
    names = ["_px", "a$b$c", "<script>alert(1)</script>", "x" * 80]
    rows = [jobs.row(float(n), name) for n, name in enumerate(names)]
    figure = metric_figure(rows, ["digits"])
    svg = str(inline(figure, "f", "<b>", "&"))
    for name in ("_px", "a$b$c", "&lt;script>alert(1)&lt;/script>", "…"):
        assert name in svg.replace("&gt;", ">"), name
    assert "<script>" not in svg
    assert "&lt;b&gt;" in svg
    ElementTree.fromstring(svg)


def test_drawings_on_one_page_do_not_share_names_or_colours():
    figures = [inline(metric_figure(jobs.several(), ["digits"]), key, key, key) for key in ("a", "b")]
    ids = [name for svg in figures for name in re.findall(r'\bid="([^"]*)"', svg)]
    assert len(ids) == len(set(ids))
    for svg in figures:
        wanted = re.findall(r'href="#([^"]*)"|url\(#([^)]*)\)', svg)
        assert wanted
        assert {a or b for a, b in wanted} <= set(re.findall(r'\bid="([^"]*)"', svg))
        assert not re.findall(r"#[0-9a-f]{6}\b", svg)  # each colour is one of the page's
        assert "<style" not in svg  # it would hold for the whole page


def contrast(one, other):
    def luminance(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_lines_stand_out_from_the_page_in_both_schemes():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast(INK, "#ffffff") > 7
    for scheme, page in ((LIGHT, "#ffffff"), (DARK, "#161617")):
        assert len(set(scheme)) == len(LIGHT)
        for colour in scheme:
            assert contrast(colour, page) >= 3, colour
            assert colour in colours()


def test_layers_are_drawn_where_they_are_and_emptied_ones_are_crosses():
    rows = [jobs.row(1, "px"), jobs.row(1, "snip")]
    profiles = [
        Profile("", "px-90.00", "px", 0.9, ("a", "b", "c"), (1.0, 0.0, 0.2), (1.0, 0.0, 0.5), 1),
        Profile("", "snip-90.00", "snip", 0.9, ("a", "b", "c"), (0.4, 0.3, 0.1), (1.0, 1.0, 1.0), 1),
    ]
    density, width = layer_figure(profiles, methods(rows)).axes
    assert ([1, 2, 3], [1.0, 0.05, 0.2]) in [(x, y) for x, y, line in lines(density) if line.get_linestyle() == "-"]
    assert [(x, y) for x, y, line in lines(density) if line.get_marker() == "x" and x] == [([2], [0.05])]
    assert ([1, 2, 3], [1.0, 0.0, 0.5]) in [(x, y) for x, y, _ in lines(width)]
