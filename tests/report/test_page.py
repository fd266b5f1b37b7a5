"""The page as it is written: what it says, how large it is, and that it needs nothing else."""

import csv
import io
import itertools
import json
import re
from html.parser import HTMLParser

import pytest
import report_jobs as jobs

from pxframe.job.made import save_row
from pxframe.report.write import write_report
from pxframe_tools import cli

EVIL = '<script>alert("1")</script>'


class Page(HTMLParser):
    """The parts of a page that the tests look at."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self._skip = [], "", None
        self.feed(text)
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self._skip = tag if tag in ("script", "style") else None

    def handle_endtag(self, tag):
        self._skip = None

    def handle_data(self, data):
        if self._skip is None:
            self.text += f" {data}"


@pytest.fixture
def made(tmp_path):
    """``made(rows)`` writes the report of these rows, and gives the page and its text as a file has it."""

    def make(rows, **more):
        path = write_report(jobs.write(tmp_path / "work", rows, **more))
        text = path.read_text(encoding="utf-8")
        return Page(text), text

    make.folder = tmp_path / "work"
    return make


def test_the_question_and_its_answer_come_first(made):
    page, _ = made(jobs.several())
    question, answer = (
        page.text.index(part) for part in ("Which pruning method is best", "the best method is magnitude")
    )
    assert question < answer < page.text.index("The answer")
    assert "digits 90 % px 81.00 ± 1.00 accuracy (%) magnitude 70.83 10.17 (8.27 to 12.06) sure 3 seeds, p = 0.25" in (
        page.text
    )
    assert "not sure: the seeds differ as much" in page.text
    assert "96.00 ± 1.00" in page.text  # the dense network
    assert "configs/mine.py" in page.text
    assert "torch 2.11.0" in page.text
    assert "Watch out" not in page.text


def test_one_seed_and_rows_without_all_that_a_row_may_have(made):
    rows = [jobs.row(80, "px"), jobs.row(70, "snip")]
    for row in rows:
        for key in ("unit", "higher_is_better", "metrics", "epochs", "diverged", "collapsed"):
            del row[key]
    page, _ = made(rows)
    assert "one seed: cannot be told" in page.text
    assert "Nothing was measured: each task here gives the network a new head" in page.text
    assert "None: every ticket keeps weights in every layer" in page.text
    assert "Not in the folder, and so not shown: the tickets px-90.00, snip-90.00." in page.text


def test_collapsed_and_diverged_runs_are_said_and_not_best(made):
    rows = [
        *(jobs.row(50, "random", seed=s) for s in (0, 1)),
        jobs.row(None, "px", collapsed="no path is left", seconds=0.0),
        jobs.row(99, "px", seed=1),
        jobs.row(float("nan"), "imp", diverged=2),
        jobs.row(98, "imp", seed=1),
    ]
    page, _ = made(rows)
    assert "random is best." in page.text
    assert "digits: 1 collapsed, and never ranked as best: px-90.00 (seed 0)." in page.text
    assert "digits: 1 diverged, and never ranked as best: imp-90.00 (seed 0)." in page.text
    assert "px-90.00 , seed 0, digits: collapsed: no path is left" in page.text
    assert "imp-90.00 , seed 0, digits: diverged: the loss was not finite in epoch 2" in page.text
    assert "1 diverged" in page.text
    assert not re.search(r"\bnan\b", page.text, re.IGNORECASE)


def test_nothing_sound_at_all_still_gives_a_page(made):
    page, _ = made([jobs.row(None, "px", collapsed="no path")])
    assert "No comparison can be made" in page.text
    assert "There is nothing to draw" in page.text
    dense_only, _ = made([jobs.row(90, "dense", 0.0)])
    assert "No pruned network has a result yet." in dense_only.text


def test_missing_runs_are_said(made):
    page, _ = made(jobs.several(), seeds=[0, 1, 2, 3])
    assert "This job is not finished: 5 runs are missing." in page.text
    assert "digits: 5 runs are missing: dense (seed 3), " in page.text


def test_a_job_without_results_or_settings_in_its_folder_has_a_page(made):
    made.folder.mkdir()
    row = jobs.row(50)
    config = {"type": "classification"}
    save_row(made.folder / "seed-0" / "digits" / row["variant"] / "result.json", row, {"task": config})
    jobs.write(made.folder, [row])
    (made.folder / "results.json").unlink()
    page = Page(write_report(made.folder).read_text(encoding="utf-8"))
    assert "px is best." in page.text
    assert "Config configs/mine.py Seeds 0 Device cpu, 2 threads Versions not known" in page.text
    (made.folder / "job.json").unlink()
    page, _ = made([row], job=False)
    assert "There is no job.json" in page.text


def test_layers_untrained_results_and_empty_layers_are_shown(made):
    jobs.ticket(made.folder, "px-90.00", a=4, b=0)
    jobs.ticket(made.folder, "snip-90.00", a=1, b=1)
    page, _ = made([jobs.row(50, "px", zero_shot={"mask": 12.25, "start": 33.5}), jobs.row(40, "snip")])
    assert "1. a.weight 100 100 25 25" in page.text
    assert "2. b.weight 0 0 25 25" in page.text
    assert "px-90.00 , seed 0: nothing left of b.weight" in page.text
    assert "px-90.00 accuracy (%) 12.25 33.50 50.00" in page.text


def test_names_are_text_wherever_they_come_from(made):
    rows = [
        jobs.row(80 + n, EVIL, task=EVIL, metric=EVIL, unit=EVIL, seed=n, collapsed=EVIL if n else None)
        for n in range(2)
    ]
    page, text = made([*rows, jobs.row(1, "px", task=EVIL)], file=EVIL, device=EVIL, threads=2)
    assert EVIL not in text
    assert "alert(" not in "".join(re.findall(r"<script>(.*?)</script>", text, re.DOTALL))
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert EVIL in page.text.replace(" <script>", "<script>")


def test_the_page_needs_nothing_from_elsewhere_and_its_parts_are_in_order(made):
    page, text = made([*jobs.several(), *jobs.several("scenes")])
    for tag, attributes in page.tags:
        for key in ("src", "href", "action", "data", "poster", "srcset", "xlink:href"):
            assert attributes.get(key, "#")[0] == "#" or attributes[key].startswith("data:"), (tag, attributes)
    assert not re.findall(r"url\((?!#)", text)
    assert "@import" not in text
    assert ("http-equiv", "Content-Security-Policy") in [pair for _, a in page.tags for pair in a.items()]
    headings = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert headings[0] == 1
    assert headings.count(1) == 1
    assert all(b <= a + 1 for a, b in itertools.pairwise(headings))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = {attributes["href"][1:] for tag, attributes in page.tags if tag == "a"}
    assert len(targets) > 5
    assert targets <= set(ids)


def test_the_same_results_give_the_same_files(made):
    made(jobs.several())
    names = ("report.html", "results.csv", "results.tex", "results.svg", "results.pdf")
    first = {name: (made.folder / name).read_bytes() for name in names}
    write_report(made.folder)
    assert {name: (made.folder / name).read_bytes() for name in names} == first
    assert len(list(csv.DictReader(io.StringIO(first["results.csv"].decode())))) == 15


def thousand(root):
    """1,000 rows: 2 tasks, 10 methods at 10 levels, 5 seeds; and tickets of 53 layers, as many as a ResNet-50 has."""
    levels = [0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 0.99, 0.995]
    methods = [f"method-{n}-option=value" for n in range(10)]
    rows = [
        jobs.row(90 - 30 * s + n / 3 + seed / 7, m, s, seed, task, zero_shot={"mask": 10.0 + n})
        for task in ("classification-of-things", "segmentation-of-scenes")
        for seed in range(5)
        for s in levels
        for n, m in enumerate(methods)
    ]
    for row in rows[: 5 * len(levels) * len(methods)]:
        kept = {f"layer{i}.block{i}.convolution{i}": i % 5 for i in range(53)}
        jobs.ticket(root, row["variant"], row["seed"], **kept)
    return rows


def test_a_thousand_rows_stay_under_a_megabyte(made):
    made.folder.mkdir()
    rows = thousand(made.folder)
    assert len(rows) == 1000
    few = [row for row in rows if row["sparsity"] == 0.5 and row["task"] == rows[0]["task"]]
    jobs.measured(made.folder, few, layers=53)
    page, text = made(rows)
    print(f"{len(text.encode())} bytes")
    assert len(text.encode()) < 1_000_000
    assert page.text.count("method-3-option=value-99.50") >= 2  # a row for each task
    drawings = [tag for tag, _ in page.tags].count("svg")
    assert drawings >= 2 + 2  # both tasks, and two levels by layer
    shown = {what: text.count(f'aria-labelledby="{what}') for what in ("layers", "spectrum", "width", "timing")}
    assert f"Shown are {shown['layers']} of 10 levels" in page.text
    assert all(shown.values()), shown


@pytest.mark.slow
def test_a_thousand_rows_of_one_seed_stay_under_a_megabyte(made):
    rows = [
        jobs.row(50.0 + n, f"a-method-of-a-long-name-{n}", 0.9, task=f"task-{t}") for t in range(20) for n in range(50)
    ]
    page, text = made(rows)
    assert len(text.encode()) < 1_000_000
    assert "of 20 tasks are drawn here" in page.text


def test_the_command_writes_the_report_and_says_where(made, capsys):
    jobs.write(made.folder, jobs.several())
    assert cli.main(["report", str(made.folder)]) == 0
    assert capsys.readouterr().out == f"report: {made.folder / 'report.html'}\n"
    assert (made.folder / "report.html").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [("nowhere", "there is no folder"), ("empty", "holds no results yet"), ("broken", "is damaged: line 1")],
)
def test_a_mistake_costs_one_line(tmp_path, capsys, name, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "results.json").write_text('{"rows": nonsense')
    assert cli.main(["report", str(tmp_path / name)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.rglob("report.html"))


def test_settings_are_shown_as_they_are_in_the_record(made):
    page, _ = made(jobs.several(), backbone={"type": "resnet", "width": [1, 2]})
    assert json.dumps("resnet") in page.text
