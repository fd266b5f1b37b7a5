"""The table of a job."""

import math

import pytest

from pxframe.job.results import label, means, print_table


def row(value, seed=0, **more):
    return {
        "task": "a",
        "variant": "px-90.00",
        "method": "px",
        "seed": seed,
        "metric": "RMSE",
        "unit": "px",
        "higher_is_better": False,
        "value": value,
        "seconds": 2.0,
        "sparsity": 0.9,
        "prunable_left": 10,
        "prunable_total": 100,
        **more,
    }


def test_means_and_deviation_over_seeds():
    (mean,) = means([row(1.0), row(3.0, seed=1, sparsity=0.8, prunable_left=20)])
    assert (mean["value"], mean["seeds"]) == (2.0, 2)
    assert mean["deviation"] == pytest.approx(math.sqrt(2))
    assert (mean["sparsity"], mean["prunable_left"]) == (pytest.approx(0.85), 15)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_an_error_that_is_not_finite_does_not_cost_the_table(capsys, bad):
    rows = [row(1.0), row(bad, seed=1, diverged=3), row(2.0, variant="random-90.00", method="random")]
    (mean, _) = means(rows)
    assert math.isnan(mean["value"])
    assert mean["deviation"] is None
    print_table(rows)
    assert "nan (1 diverged)" in capsys.readouterr().out


def test_collapsed_tickets_have_no_value(capsys):
    rows = [row(None, collapsed="no path"), row(1.0, seed=1), row(None, variant="px-99.00", collapsed="no path")]
    print_table(rows)
    printed = capsys.readouterr().out
    assert "1.00 (1 collapsed)" in printed
    assert printed.count("collapsed") == 2


def test_a_metric_is_shown_with_its_unit_and_direction():
    assert label(row(1.0)) == "RMSE (px) \N{DOWNWARDS ARROW}"
    assert label(row(1.0, unit="", higher_is_better=True)) == "RMSE"
    assert label(row(1.0, metric="accuracy", unit="%", higher_is_better=True)) == "accuracy (%)"
