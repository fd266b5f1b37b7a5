"""Exact counts whatever the scores, and the tie rule."""

import pytest
import torch

from pxframe.threshold import apportion, global_masks, highest, layer_masks


def everything(scores):
    return {name: torch.ones_like(s, dtype=torch.bool) for name, s in scores.items()}


@pytest.mark.parametrize("keep", [0, 1, 7, 8, 9, 10])
def test_nine_zeros_and_a_one(keep):
    values = torch.zeros(10)
    values[3] = 1.0
    kept = highest(values, keep)
    assert kept.sum() == keep
    assert kept[3] == (keep > 0)


@pytest.mark.parametrize("levels", [1, 2, 5, 1000])
def test_count_is_exact_and_nothing_kept_scores_below_what_is_pruned(levels):
    generator = torch.Generator().manual_seed(levels)
    values = torch.randint(0, levels, (1000,), generator=generator).float() - levels / 2
    for keep in range(0, 1001, 37):
        kept = highest(values, keep)
        assert kept.sum() == keep
        if 0 < keep < 1000:
            assert values[kept].min() >= values[~kept].max()


def test_ties_are_spread_evenly_over_layers():
    scores = {"a": torch.zeros(10, 10), "b": torch.zeros(30, 10), "c": torch.zeros(600)}
    masks = global_masks(scores, everything(scores), 100)
    assert {name: int(m.sum()) for name, m in masks.items()} == {"a": 10, "b": 30, "c": 60}


def test_only_candidates_are_kept():
    scores = {"a": torch.arange(10.0), "b": torch.arange(10.0) + 10}
    candidates = {"a": torch.arange(10) < 5, "b": torch.arange(10) < 5}
    masks = global_masks(scores, candidates, 6)
    assert masks["a"].nonzero().flatten().tolist() == [4]
    assert masks["b"].nonzero().flatten().tolist() == [0, 1, 2, 3, 4]


def test_layers_get_equal_shares_and_the_total_is_exact():
    generator = torch.Generator().manual_seed(0)
    scores = {str(n): torch.rand(n, generator=generator) for n in (7, 64, 333, 1000)}
    for keep in range(0, 1404, 101):
        masks = layer_masks(scores, everything(scores), keep)
        assert sum(int(m.sum()) for m in masks.values()) == keep
        for name, mask in masks.items():
            assert abs(int(mask.sum()) - keep * int(name) / 1404) < 1


def test_apportion_adds_up():
    assert apportion([1, 1, 1], 2) == [1, 1, 0]
    assert apportion([5, 3, 2], 10) == [5, 3, 2]
    assert sum(apportion([7, 11, 13], 17)) == 17
