"""Exact counts whatever the scores, and the tie rule."""

import pytest
import torch

from pxframe.selection import threshold
from pxframe.selection.threshold import _on_cpu, _on_device, global_masks, layer_masks


def everything(scores):
    return {name: torch.ones_like(s, dtype=torch.bool) for name, s in scores.items()}


def highest(values, keep, choose=None):
    candidates = torch.ones_like(values, dtype=torch.bool)
    if choose is not None:
        return choose([values], [candidates], keep)[0]
    return global_masks({"a": values}, {"a": candidates}, keep)["a"]


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


def test_each_layer_keeps_its_count():
    scores = {"a": torch.arange(10.0), "b": torch.arange(10.0) + 10}
    masks = layer_masks(scores, everything(scores), {"a": 4, "b": 0})
    assert masks["a"].nonzero().flatten().tolist() == [6, 7, 8, 9]
    assert not masks["b"].any()


@pytest.mark.parametrize("share", [0.001, 0.018, 0.5, 0.97])
@pytest.mark.parametrize("kind", ["smooth", "ties", "subnormal", "huge", "mostly_out"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_among_many_the_same_as_sorting(kind, share, dtype):
    n = 1 << 16
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(n, generator=generator, dtype=torch.float64) - 0.5
    if kind == "ties":
        values = (values * 50).floor()
    elif kind == "subnormal":
        values = values * 20 * torch.finfo(dtype).smallest_normal
    elif kind == "huge":
        values = values * torch.finfo(dtype).max * 1.9
    elif kind == "mostly_out":
        values[torch.rand(n, generator=generator) < 0.9] = -torch.inf
        share *= 0.09
    values = values.to(dtype)
    keep = round(share * n)
    kept = highest(values, keep)
    assert kept.sum() == keep
    assert torch.equal(values[kept].sort().values, values.sort().values[n - keep :])


@pytest.mark.parametrize("levels", [1, 2, 7, 1000])
def test_the_device_s_way_keeps_what_the_cpu_s_keeps(levels):
    values = torch.randint(0, levels, (1000,), generator=torch.Generator().manual_seed(0)).float()
    for keep in range(1, 1000, 31):
        assert torch.equal(highest(values, keep, _on_cpu), highest(values, keep, _on_device))


@pytest.mark.parametrize("missing", [1, 3, 10, 29, 30])
@pytest.mark.parametrize("choose", [_on_cpu, _on_device])
def test_ties_are_kept_by_the_rule(missing, choose):
    """Of n ties those of rank r with r * missing mod n < missing: the gaps between them differ by one at most."""
    values = torch.zeros(100)
    values[torch.arange(100) % 10 < 3] = 1.0
    kept = highest(values, missing, choose)
    ranks = [r for r in range(30) if r * missing % 30 < missing]
    assert kept.nonzero().flatten().tolist() == [10 * (r // 3) + r % 3 for r in ranks]


@pytest.mark.parametrize("kind", ["smooth", "ties", "one_value", "infinite", "sorted"])
@pytest.mark.parametrize("share", [1e-5, 0.02, 0.5, 1.0])
def test_a_sample_changes_no_mask(kind, share, monkeypatch):
    """What the sample says narrows the search and decides nothing, not even in layers sorted by their scores."""
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(3, 40, 7, 3, 3, generator=generator)
    if kind == "ties":
        values = (values * 20).floor()
    elif kind == "one_value":
        values = torch.ones_like(values)
    elif kind == "infinite":
        values[values > 0.6] = torch.inf
    elif kind == "sorted":
        values = values.flatten().sort().values.view(values.shape)
    scores = {str(i): layer for i, layer in enumerate(values)}
    candidates = {name: torch.rand(s.shape, generator=generator) < 0.7 for name, s in scores.items()}
    keep = max(1, int(share * sum(int(c.sum()) for c in candidates.values())))
    whole = global_masks(scores, candidates, keep)
    monkeypatch.setattr(threshold, "_SAMPLE", 100)
    sampled = global_masks(scores, candidates, keep)
    assert all(torch.equal(sampled[name], whole[name]) for name in scores)
    assert sum(int(m.sum()) for m in sampled.values()) == keep
