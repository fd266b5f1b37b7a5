"""How many weights each layer keeps: exact totals, and the densities of the papers."""

import pytest
import torch
from scipy.optimize import brentq
from torch import nn

import pxframe
from pxframe.selection.distribution import apportion, layer_counts

SHAPES = {"conv": (64, 3, 3, 3), "wide": (512, 256, 3, 3), "point": (256, 64, 1, 1), "fc": (10, 512)}
SIZES = {name: torch.Size(shape).numel() for name, shape in SHAPES.items()}


def test_apportion_adds_up():
    assert apportion([1, 1, 1], [1, 1, 1], 2) == [1, 1, 0]
    assert apportion([5, 3, 2], [5, 3, 2], 10) == [5, 3, 2]
    assert apportion([1, 1, 8], [100, 100, 3], 9) == [3, 3, 3]
    assert apportion([1, 2], [9, 9], 0) == [0, 0]
    for keep in range(32):
        found = apportion([7, 11, 13], [7, 11, 13], keep)
        assert sum(found) == keep
        assert all(abs(n - keep * s / 31) < 1 for n, s in zip(found, [7, 11, 13], strict=True))


@pytest.mark.parametrize("density", [0.01, 0.1, 0.5, 0.9, 1.0])
def test_erk_densities_solve_the_paper_s_equation(density):
    """Density_l = min(1, eps * r_l), with the eps that gives the total; found here by root finding."""
    ratios = {n: sum(shape) / SIZES[n] for n, shape in SHAPES.items()}
    keep = round(density * sum(SIZES.values()))

    def excess(eps):
        return sum(min(1.0, eps * ratios[n]) * SIZES[n] for n in SIZES) - keep

    eps = brentq(excess, 0, 1e6, xtol=1e-12)
    found = layer_counts("erk", SHAPES, {n: (size, size) for n, size in SIZES.items()}, keep)
    assert sum(found.values()) == keep
    for name, size in SIZES.items():
        assert abs(found[name] - min(1.0, eps * ratios[name]) * size) <= 1


def test_counts_never_exceed_what_is_left():
    """Rounding may hand a layer one more in the next round than it kept in this."""
    left = dict(SIZES)
    for keep in range(sum(SIZES.values()), 0, -30011):
        counts = layer_counts("erk", SHAPES, {n: (SIZES[n], left[n]) for n in SIZES}, keep)
        assert sum(counts.values()) == keep
        assert all(counts[n] <= left[n] for n in SIZES)
        left = counts


@pytest.mark.parametrize("distribution", ["uniform", "erk"])
def test_prune_by_layer(distribution):
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 16, 3), nn.Flatten(), nn.Linear(16, 4))
    ticket = pxframe.prune(
        model, None, scorer="random", sparsity=0.8, rounds=9, scope="layer", distribution=distribution
    )
    assert ticket.kept == round(0.2 * ticket.total)
    assert ticket.meta["distribution"] == distribution
    density = ticket.density_per_layer()
    if distribution == "uniform":
        assert all(abs(d - 0.2) < 0.01 for d in density.values())
    else:
        assert density["2.weight"] < density["0.weight"] < density["4.weight"]


def test_a_distribution_without_layers_to_distribute_over_is_refused():
    with pytest.raises(pxframe.PxframeError, match="needs scope='layer'"):
        pxframe.prune(nn.Linear(3, 3), None, scorer="random", distribution="erk")
    with pytest.raises(pxframe.PxframeError, match="did you mean 'uniform'"):
        pxframe.prune(nn.Linear(3, 3), None, scorer="random", scope="layer", distribution="unifrom")
