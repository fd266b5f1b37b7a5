"""What is read from a work folder: finished or not, damaged, changed, or no work folder at all."""

import json

import pytest
import report_jobs as jobs

from pxframe.base.errors import PxframeError
from pxframe.job.made import save_row
from pxframe.report.data.found import missing_sentences, read


def test_a_finished_job_has_all_its_rows_and_misses_nothing(tmp_path):
    found = read(jobs.write(tmp_path, jobs.several()))
    assert found.rows == jobs.several()
    assert (found.missing, found.notes, found.seeds) == ([], [], [0, 1, 2])
    assert found.about["versions"] == {"torch": "2.11.0"}
    assert found.job["threads"] == 2


def finished_run(root, row, config):
    save_row(root / f"seed-{row['seed']}" / row["task"] / row["variant"] / "result.json", row, {"task": config})


def test_a_job_that_is_not_finished_shows_what_is_there_and_says_what_is_missing(tmp_path):
    config = {"type": "classification"}
    jobs.write(tmp_path, jobs.several())
    (tmp_path / "results.json").unlink()
    rows = [r for r in jobs.several() if r["seed"] == 0]
    for row in rows[:-1]:
        finished_run(tmp_path, row, config)
    found = read(tmp_path)
    key = lambda row: (row["variant"], row["seed"])  # noqa: E731
    assert sorted(found.rows, key=key) == sorted(rows[:-1], key=key)
    assert len(found.missing) == 1 + 2 * 5
    assert ("digits", "magnitude-90.00", 0) in found.missing
    (sentence,) = missing_sentences(found.missing)
    assert sentence.startswith("digits: 11 runs are missing: magnitude-90.00 (seed 0), dense (seed 1), ")
    assert sentence.endswith(" and 5 more.")


def test_runs_of_a_job_that_grew_are_added_if_they_are_of_its_settings(tmp_path):
    first = [r for r in jobs.several() if r["seed"] == 0]
    jobs.write(tmp_path, first, seeds=[0, 1])
    second = [r for r in jobs.several() if r["seed"] == 1]
    finished_run(tmp_path, second[0], {"type": "classification"})
    finished_run(tmp_path, second[1], {"type": "classification", "epochs": 7})
    finished_run(tmp_path, {**second[2], "variant": "of-another-config"}, {"type": "classification"})
    damaged = tmp_path / "seed-1" / "digits" / second[3]["variant"] / "result.json"
    damaged.parent.mkdir(parents=True)
    damaged.write_text("{")
    found = read(tmp_path)
    assert found.rows == [*first, second[0]]
    assert len(found.missing) == 4
    assert "1 finished runs are left out: they were made with other settings of their task." in found.notes
    assert any("A result is left out" in note and str(damaged) in note for note in found.notes)


def test_without_the_settings_the_rows_are_shown_and_the_page_says_so(tmp_path):
    found = read(jobs.write(tmp_path, jobs.several(), job=False))
    assert len(found.rows) == 15
    assert found.missing == []
    assert "There is no job.json" in found.notes[0]
    (tmp_path / "job.json").write_text("{")
    assert "is damaged" in read(tmp_path).notes[0]
    (tmp_path / "job.json").write_text("{}")
    assert "is no record of a job" in read(tmp_path).notes[0]


def test_the_settings_of_an_older_version_tell_what_is_missing_among_what_was_seen(tmp_path):
    rows = [r for r in jobs.several() if r["seed"] < 2][:-1]
    jobs.write(tmp_path, rows)
    settings = json.loads((tmp_path / "job.json").read_text())
    del settings["chosen"], settings["variants"]
    (tmp_path / "job.json").write_text(json.dumps(settings))
    assert read(tmp_path).missing == [("digits", "magnitude-90.00", 1)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "results.json' is damaged: it is empty; restore or remove it"),
        ('{"rows": [', "results.json' is damaged: line 1"),
        ("[]", "holds a list, not a JSON object"),
        ('{"rows": 3}', "results.json' has no list 'rows'; remove it"),
        ('{"rows": [3]}', "results.json': row 0 is no row of results; restore or remove the file"),
        ('{"rows": [{"task": "a"}]}', "results.json': row 0 has no 'variant'"),
        (json.dumps({"rows": [jobs.row(1), jobs.row("1")]}), "row 1 has a wrong 'value'"),
        (json.dumps({"rows": [jobs.row(1, seed=0) | {"seed": True}]}), "row 0 has a wrong 'seed'"),
        ('{"rows": []}', "holds no results yet: no run is finished; run `pxframe transfer CONFIG --work-dir"),
    ],
)
def test_damaged_results_cost_one_line(tmp_path, content, message):
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(PxframeError, match="results") as error:
        read(tmp_path)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_no_folder_and_an_empty_one(tmp_path):
    with pytest.raises(PxframeError, match=r"there is no folder '.*nowhere'; name a job's work folder"):
        read(tmp_path / "nowhere")
    with pytest.raises(PxframeError, match="holds no results yet"):
        read(tmp_path)
