"""Which method is best, and how sure that is: against sums done by hand and an enumeration of signs."""

import itertools
import math

import pytest
import report_jobs as jobs

from pxframe.report.data.compare import answers, difference, lead, levels, percent


def test_the_best_method_and_the_next_at_each_level():
    at_80, at_90 = answers(jobs.several())
    assert (at_80.best["method"], at_80.second["method"]) == ("magnitude", "px")
    assert (at_90.best["method"], at_90.best["value"]) == ("px", 81)
    assert at_90.difference.values == (10, 9.5, 11)
    assert at_80.difference.values == (2, -1, 2)
    assert at_90.dense["value"] == 96
    assert at_90.difference.sure
    assert not at_80.difference.sure
    assert lead([at_80, at_90]) == (
        "Of 2 comparisons, each a task at one sparsity, the best method is magnitude in 1 and px in 1. In 1 of these "
        "the lead over the next method is larger than chance between seeds explains."
    )


def test_the_interval_and_the_p_value_are_those_of_the_definitions():
    values = (1.0, 2.0, 4.5, -0.5)
    found = difference(values)
    mean = sum(values) / 4
    error = math.sqrt(sum((v - mean) ** 2 for v in values) / 3 / 4)
    quantile = 3.182446305284263  # of Student's t with three degrees of freedom, at 0.975, from a table
    assert (found.low, found.high) == pytest.approx((mean - quantile * error, mean + quantile * error))
    flips = [
        abs(sum(s * v for s, v in zip(signs, values, strict=True))) for signs in itertools.product((1, -1), repeat=4)
    ]
    assert found.p == pytest.approx(sum(flip >= abs(sum(values)) - 1e-9 for flip in flips) / 16)


def test_lower_is_better_where_the_metric_says_so():
    rows = [
        {**jobs.row(v, m, seed=s), "higher_is_better": False}
        for m, found in {"px": (3.0, 3.1), "snip": (2.0, 2.2)}.items()
        for s, v in enumerate(found)
    ]
    (answer,) = answers(rows)
    assert answer.best["method"] == "snip"
    assert answer.difference.values == pytest.approx((1.0, 0.9))


def test_one_seed_cannot_tell():
    rows = [jobs.row(80, "px"), jobs.row(70, "snip")]
    (answer,) = answers(rows)
    assert answer.difference.verdict == "one seed: cannot be told"
    assert (answer.difference.low, answer.difference.p, answer.difference.sure) == (None, None, False)
    assert lead([answer]) == "px is best. How sure that is cannot be told from one seed."


def test_seeds_are_paired_and_only_shared_ones_count():
    rows = [jobs.row(80, "px", seed=0), jobs.row(82, "px", seed=1), jobs.row(70, "snip", seed=1)]
    assert answers(rows)[0].difference.values == (12,)
    apart = [jobs.row(80, "px", seed=0), jobs.row(70, "snip", seed=1)]
    assert answers(apart)[0].difference.verdict == "no seed in common: cannot be told"


def test_equal_results_are_said_to_be_equal():
    rows = [jobs.row(v, m, seed=s) for m in ("px", "synflow") for s, v in enumerate((80, 81))]
    assert answers(rows)[0].difference.verdict == "equal in all 2 seeds"
    assert not answers(rows)[0].difference.sure


@pytest.mark.parametrize(
    "fallen",
    [
        {"collapsed": "no path", "value": None},
        {"diverged": 2},
        {"value": math.nan},
        {"value": math.inf},
        {"collapsed": "no path", "value": 99.0},
    ],
)
def test_a_method_with_a_collapsed_or_diverged_run_is_never_best(fallen):
    rows = [jobs.row(99, "px", seed=0), {**jobs.row(99, "px", seed=1), **fallen}]
    rows += [jobs.row(50, "snip", seed=s) for s in (0, 1)]
    (answer,) = answers(rows)
    assert answer.best["method"] == "snip"
    assert [row["method"] for row in answer.left_out] == ["px"]
    (alone,) = answers(rows[:2])
    assert (alone.best, alone.second, alone.difference) == (None, None, None)
    assert lead([alone]).startswith("No comparison can be made")


def test_levels_join_what_channels_cannot_hit_exactly_and_nothing_else():
    def level(*sparsities):
        rows = [jobs.row(1, f"m{i}", s) for i, s in enumerate(sparsities)]
        return len(set(levels(rows).values()))

    assert level(0.9, 0.9011) == 1
    assert level(0.98, 0.982) == 2
    assert level(0.999, 0.9995) == 2
    of_one_method = [jobs.row(1, "px", 0.9), jobs.row(1, "px", 0.9005)]
    assert len(set(levels(of_one_method).values())) == 2
    assert levels([jobs.row(1, "dense", 0.0)]) == {("digits", "dense"): 0.0}


def test_percentages_say_no_more_than_they_must():
    assert [percent(s) for s in (0.9, 0.9000012, 0.982, 0.99999, 1.0, 0.5)] == [
        "90",
        "90",
        "98.2",
        "99.999",
        "100",
        "50",
    ]
    assert [percent(s, (0.9, 0.90001, 0.982)) for s in (0.9, 0.90001, 0.982)] == ["90", "90.001", "98.2"]
