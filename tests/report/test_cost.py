"""Slim networks in the report: against their cost, and ranked where they aimed at the same."""

import csv
import json

import pytest
import report_jobs as jobs

from pxframe.report.cost import cost_figure, cost_section
from pxframe.report.data.compare import answers, levels
from pxframe.report.write import write_report

FLOPS = {"flops": 0.5}


def slim(value, method, sparsity, latency, seed=0, target=FLOPS):
    shares = {"flops": 0.5, "params": 0.4, "latency": latency}
    more = {"slim": shares, "target": target, "variant": f"{method}-flops=50.00"}
    return jobs.row(value, method, sparsity, seed, **more)


def rows():
    dense = [jobs.row(95, "dense", 0.0, slim={"flops": 1.0, "params": 1.0, "latency": 1.0})]
    return [*dense, slim(80, "snip", 0.3, 0.7), slim(82, "snip", 0.3, 0.8, seed=1), slim(70, "random", 0.6, 0.75)]


def test_tickets_of_one_target_are_compared_whatever_their_sparsity():
    assert levels(rows()) == {
        ("digits", "dense"): 0.0,
        **{("digits", f"{method}-flops=50.00"): pytest.approx(0.45) for method in ("snip", "random")},
    }
    (answer,) = answers(rows())
    assert (answer.target, answer.best["method"], answer.second["method"]) == ("flops 50 %", "snip", "random")


def test_tickets_of_other_targets_are_not():
    other = slim(60, "random", 0.3, 0.7, target={"flops": 0.25})
    found = answers([*rows(), {**other, "variant": "random-flops=25.00"}])
    assert sorted(answer.target for answer in found) == ["flops 25 %", "flops 50 %"]


def test_points_are_at_the_shares_that_were_measured():
    figure = cost_figure(rows())
    time, macs = figure.axes[:2]
    lines = {tuple(line.get_xdata()) for line in time.get_lines()}
    assert (75.0,) in lines  # both the mean of snip's two runs, and random's one
    assert (70.0, 80.0) in lines
    assert {tuple(line.get_xdata()) for line in macs.get_lines()} >= {(50.0,), (50.0, 50.0)}


def test_the_section_and_the_files(tmp_path):
    section = cost_section(rows())
    assert [(row["variant"], row["latency"], row["result"]) for row in section["table"]] == [
        ("dense", "100.0", "95.00"),
        ("snip-flops=50.00", "75.0", "81.00 ± 1.41"),
        ("random-flops=50.00", "75.0", "70.00"),
    ]
    page = write_report(jobs.write(tmp_path / "work", rows())).read_text(encoding="utf-8")
    assert "What the slim networks cost" in page
    assert "flops 50 %" in page
    assert (tmp_path / "work" / "cost.svg").stat().st_size > 1000
    with (tmp_path / "work" / "results.csv").open() as file:
        table = list(csv.DictReader(file))
    assert table[1]["slim.latency"] == "0.7"
    assert "flops 50 \\%" in (tmp_path / "work" / "results.tex").read_text()


def test_a_job_without_slim_networks_says_nothing_of_cost(tmp_path):
    page = write_report(jobs.write(tmp_path / "work", jobs.several())).read_text(encoding="utf-8")
    assert "What the slim networks cost" not in page
    assert not (tmp_path / "work" / "cost.svg").exists()
    assert cost_figure(jobs.several()) is None


def bench(file, **changes):
    network = dict.fromkeys(("parameters", "nonzero", "macs", "disk", "compressed", "memory"), 2_000_000)
    network |= {"latency_seconds": [0.001, 0.0025, 0.003], "images_per_second": [10, 1234, 2000]}
    setting = {"device": "cpu", "threads": 1, "batch": 32, "input": [3, 8, 8]}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"setting": setting, "networks": {"dense": network, "slim": {**network, **changes}}}))


def test_benches_of_the_tickets_are_rows_of_the_page(tmp_path):
    work = jobs.write(tmp_path / "work", jobs.several())
    bench(work / "seed-0" / "tickets" / "px-90.00-bench.json", parameters=777)
    page = write_report(work).read_text(encoding="utf-8")
    assert "Size and speed" in page
    assert "<td>777</td>" in page
    assert "2.50 (1.00 to 3.00)" in page
    assert "1,234 (10 to 2,000)" in page
    assert "cpu, 1 thread, batches of 32" in page


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"setting": {}, "networks": {"dense": {}}}'])
def test_a_damaged_bench_is_named_and_left_out(tmp_path, text):
    work = jobs.write(tmp_path / "work", jobs.several())
    bench(work / "seed-0" / "tickets" / "px-90.00-bench.json")
    (work / "seed-0" / "tickets" / "px-80.00-bench.json").write_text(text)
    page = write_report(work).read_text(encoding="utf-8")
    assert "px-80.00-bench.json is damaged" in page
    assert page.count('<th scope="row">px-90.00</th>') == 2
