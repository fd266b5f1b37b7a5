"""The sections on spectra, widths and times: from files that the commands write, and from files that are none."""

import json
import math
import shutil
import statistics
from xml.etree import ElementTree

import pytest
import report_jobs as jobs
from digits_job import digits_job

from pxframe.report import write
from pxframe.report.data.measured import Measured, by_level, outdated, read_measured
from pxframe.report.evidence import drawn
from pxframe.report.figures.curves import methods
from pxframe.report.write import write_report
from pxframe_tools import cli

PRUNE = 'scorer="magnitude", sparsity=[0.5, 0.9]'


@pytest.fixture(scope="module")
def measured_folder(tmp_path_factory):
    """What the three commands leave, nothing else having been run."""
    place = tmp_path_factory.mktemp("evidence")
    (place / "mine.py").write_text(digits_job(place / "data", PRUNE))
    job = [str(place / "mine.py"), "--work-dir", str(place / "work"), "--resume"]
    assert cli.main(["spectrum", *job, "--images", "4"]) == 0
    untrained = (place / "work" / "report.html").read_text(encoding="utf-8")
    assert cli.main(["width", *job]) == 0
    assert cli.main(["timing", *job, "--rounds", "1", "2", "--cfg-options", "prune.sparsity=0.5"]) == 0
    return place / "work", untrained


def rows_of(folder, what):
    return json.loads((folder / f"{what}.json").read_text())["rows"]


def lines(panel):
    return [(list(map(float, line.get_xdata())), list(map(float, line.get_ydata()))) for line in panel.lines]


@pytest.mark.slow
def test_each_command_leaves_its_section_and_its_figures(measured_folder):
    folder, untrained = measured_folder
    text = (folder / "report.html").read_text(encoding="utf-8")
    for what in ("spectrum", "width", "timing"):
        assert f'<h2 id="{what}">' in text
        assert f'<a href="#{what}">' in text
        assert ElementTree.parse(folder / f"{what}.svg").getroot().tag.endswith("svg")
        assert (folder / f"{what}.pdf").read_bytes().startswith(b"%PDF")
    assert 'id="answer"' in text  # timing trains
    assert "What pruning leaves of the network" in untrained
    assert 'id="spectrum"' in untrained
    assert not any(f'id="{name}"' in untrained for name in ("answer", "results", "seconds", "width", "timing"))


@pytest.mark.slow
def test_tables_have_the_means_of_the_rows(measured_folder):
    folder, _ = measured_folder
    text = (folder / "report.html").read_text(encoding="utf-8")
    section = text[text.index('id="spectrum"') : text.index('id="width"')]
    means = {}
    for variant in ("magnitude-50.00", "random-50.00"):
        values = [row["distance"] for row in rows_of(folder, "spectrum") if row["variant"] == variant]
        means[variant.partition("-")[0]] = statistics.mean(values)
        assert f"<td>{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f}</td>" in section
    best = min(means, key=means.get)
    assert f"at 50 % {best} ({means[best]:.2f})" in section
    (seconds,) = {
        f"<td>{statistics.mean(found):.2f} ± {statistics.stdev(found):.2f}</td>"
        for found in [[r["prune_seconds"] for r in rows_of(folder, "timing") if r["variant"] == "magnitude-50.00"]]
    }
    assert seconds in text[text.index('id="timing"') :]


@pytest.mark.slow
def test_figures_have_every_level_and_points_at_their_places(measured_folder):
    measured = read_measured(measured_folder[0])
    figures = drawn(measured, methods(measured.rows))
    assert [title.partition(".")[0].partition(" ")[0] for title in by_level(measured.spectrum)] == ["50", "90"]
    firsts = [row["eigenvalues"][0] for row in measured.spectrum if row["variant"] == "magnitude-90.00"]
    geometric = math.sqrt(firsts[0] * firsts[1])
    for panel in figures["spectrum"].axes:
        assert (panel.get_xscale(), panel.get_yscale(), len(panel.lines)) == ("log", "log", 3)
    assert any(x[0] == 1 and y[0] == pytest.approx(geometric) for x, y in lines(figures["spectrum"].axes[1]))
    _, kept, _, lost = figures["width"].axes
    rows = [row for row in measured.width if row["variant"] == "random-90.00"]
    first, other = (
        [(one["kept"] / one["units"], (one["kept"] - one["connected"]) / one["units"]) for one in row["layers"]]
        for row in rows
    )
    for number, panel in enumerate((kept, lost)):
        wanted = [(a[number] + b[number]) / 2 for a, b in zip(first, other, strict=True)]
        assert any(y == pytest.approx(wanted) for _, y in lines(panel))
    seconds, result = figures["timing"].axes
    taken = [
        statistics.mean(row["prune_seconds"] for row in measured.timing if row["variant"] == variant)
        for variant in ("magnitude-50.00", "magnitude-rounds=2-50.00")
    ]
    assert any((x, y) == ([1, 2], pytest.approx(taken)) for x, y in lines(seconds))
    assert seconds.get_xscale() == result.get_xscale() == "log"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "is damaged: line 1"),
        ('{"found": 1}', "has no list 'rows'"),
        ('{"rows": [{"seed": 0}]}', "row 0 has no 'variant'"),
        ('{"rows": [{"seed": 0, "variant": "<b>", "method": "m", "sparsity": 0.5, "eigenvalues": ["<b>"], '
         '"largest": 1, "relative_trace": null, "distance": null}]}', "row 0 holds values that cannot be"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("results", [True, False])
def test_a_file_that_is_damaged_or_foreign_costs_a_line_and_not_the_page(tmp_path, content, words, results):
    folder = jobs.write(tmp_path / "work", jobs.several())
    if not results:
        (folder / "results.json").unlink()
    (folder / "spectrum.json").write_text(content)
    text = write_report(folder).read_text(encoding="utf-8")
    assert text.count("What `pxframe spectrum` measured is left out: ") == 1
    assert words in text.replace("&#39;", "'")
    assert 'id="spectrum"' not in text
    assert "<b>" not in text
    assert not list(folder.glob("spectrum.svg"))


@pytest.mark.slow
def test_what_cannot_be_is_refused(measured_folder, tmp_path):
    for what, key, value in (("width", "layers", [{"name": "a"}]), ("timing", "rounds", 0), ("timing", "seed", "0")):
        folder = tmp_path / f"{what}-{key}"
        shutil.copytree(measured_folder[0], folder, ignore=lambda *_: ["seed-0", "seed-1"])
        about = json.loads((folder / f"{what}.json").read_text())
        about["rows"][-1][key] = value
        (folder / f"{what}.json").write_text(json.dumps(about))
        measured = read_measured(folder)
        assert (getattr(measured, what), len(measured.notes)) == ([], 1)
        assert measured.spectrum


def test_sections_are_there_without_any_results(tmp_path):
    rows = [row for row in jobs.several() if row["sparsity"] in (0.0, 0.9)]
    jobs.measured(tmp_path, rows, layers=3)
    text = write_report(tmp_path).read_text(encoding="utf-8")
    assert [f'id="{what}"' in text for what in ("spectrum", "width", "timing", "answer", "seconds")] == [
        *(True, True, True),
        *(False, False),
    ]
    assert all((tmp_path / f"{what}.pdf").exists() for what in ("spectrum", "width", "timing"))


def test_a_page_of_results_alone_has_none_of_the_sections(tmp_path):
    text = write_report(jobs.write(tmp_path / "work", jobs.several())).read_text(encoding="utf-8")
    assert not any(f'id="{what}"' in text for what in ("spectrum", "width", "timing"))
    assert write.read_measured(tmp_path).files is False


def test_levels_that_read_the_same_to_two_places_are_all_there(tmp_path):
    rows = [jobs.row(50.0, "px", sparsity, variant=f"px-{sparsity}") for sparsity in (0.9, 0.90001, 0.5)]
    rows += [jobs.row(90.0, "dense", 0.0)]
    jobs.measured(tmp_path, rows, layers=3)
    found = by_level(read_measured(tmp_path).width)
    assert {title: [row["variant"] for row in here] for title, here in found.items()} == {
        "50 % sparsity": ["px-0.5", "dense"],
        "90 % sparsity": ["px-0.9", "dense"],
        "90.001 % sparsity": ["px-0.90001", "dense"],
    }
    assert len(drawn(read_measured(tmp_path), ["px"])["spectrum"].axes) == 4  # the last place is empty


def test_of_many_levels_four_are_drawn_and_the_page_says_so(tmp_path):
    levels = [0.5, 0.6, 0.7, 0.8, 0.9, 0.95]
    jobs.measured(tmp_path, [jobs.row(50.0, "px", sparsity) for sparsity in levels], layers=3)
    measured = read_measured(tmp_path)
    titles = [panel.get_title(loc="left") for panel in drawn(measured, ["px"])["spectrum"].axes]
    assert titles == ["50 % sparsity", "70 % sparsity", "80 % sparsity", "95 % sparsity"]
    for other in ("width.json", "timing.json"):
        (tmp_path / other).unlink()
    text = write_report(tmp_path).read_text(encoding="utf-8")
    assert "4 of 6 levels are drawn here, to keep the page small. The table has all." in text


@pytest.mark.parametrize(
    ("recorded", "words"),
    [
        ({"prune": {"samples": 6}, "tasks": {}}, "job's present ones: prune.samples was 6, now 12. Run it again"),
        ({"prune": {"samples": 12}, "tasks": {"digits": {"type": "classification"}}}, None),
        ({"backbone": {"type": "timm"}}, "backbone.type was 'timm', now 'mine'"),
        ({"prune": {}, "tasks": {"scenes": {"type": "segmentation"}}}, "tasks.scenes was "),
    ],
)
def test_what_was_measured_with_other_settings_is_told(recorded, words):
    job = {"backbone": {"type": "mine"}, "prune": {"samples": 12, "scorer": "px"}}
    job["tasks"] = {"digits": {"type": "classification"}, "more": {}}
    told = outdated(Measured(settings={"width": recorded}), job)
    assert [words in sentence for sentence in told] == ([True] if words else [])
    assert outdated(Measured(settings={"width": recorded}), {}) == []


def test_other_settings_cost_a_line_on_the_page(tmp_path):
    folder = jobs.write(tmp_path / "work", [jobs.row(50.0)], prune={"samples": 12})
    jobs.measured(folder, [jobs.row(50.0)], layers=1)
    about = json.loads((folder / "width.json").read_text())
    (folder / "width.json").write_text(json.dumps({**about, "settings": {"prune": {"samples": 6}}}))
    text = write_report(folder).read_text(encoding="utf-8")
    assert text.count("measured was made with other settings") == 1
    assert "prune.samples was 6, now 12" in text
