"""Batch norms are folded into a weight only where that is the weight's own scale."""

import pytest
import torch
from torch import nn

from pxframe.engine.folding import find_folds
from pxframe.network.net import Net
from pxframe.scoring.paths import open_paths
from pxframe.scoring.saliencies import contract, saliencies


class Norms(nn.Module):
    """A norm for each of the ways it may follow a convolution."""

    def __init__(self):
        super().__init__()
        self.plain, self.grouped = nn.Conv2d(4, 4, 3, bias=False), nn.Conv2d(4, 4, 1, groups=2)
        self.read_twice, self.used_twice = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        self.turned = nn.ConvTranspose2d(4, 4, 1)
        self.bn = nn.ModuleDict({name: nn.BatchNorm2d(4) for name in ("plain", "grouped", "two", "twice", "turned")})
        self.bare = nn.BatchNorm2d(4, affine=False)
        for norm in (*self.bn.values(), self.bare):
            norm.running_var.uniform_(0.2, 3)
            if norm.affine:
                nn.init.uniform_(norm.weight, -2, 2)

    def forward(self, x):
        x = self.bn["plain"](self.plain(x)).relu()
        x = self.bn["grouped"](self.grouped(x)).relu()
        y = self.read_twice(x)
        x = self.bn["two"](y) + y
        x = self.bn["twice"](self.used_twice(self.used_twice(x)))
        x = self.bn["turned"](self.turned(x))
        return self.bare(x)


@pytest.fixture
def net():
    torch.manual_seed(0)
    model = Norms().double().eval()
    return Net(model, {n: torch.rand_like(p) < 0.7 for n, p in model.named_parameters() if p.ndim == 4})


def test_which_norms_are_folded(net):
    folds = find_folds(net.trace(torch.ones(1, 4, 5, 5, dtype=torch.float64)), net.masks)
    assert {weight: norm.gamma for weight, norm in folds.values()} == {
        "plain.weight": "bn.plain.weight",
        "grouped.weight": "bn.grouped.weight",
    }


def test_a_norm_whose_parameter_is_pruned_is_not_folded(net):
    trace = net.trace(torch.ones(1, 4, 5, 5, dtype=torch.float64))
    folds = find_folds(trace, {*net.masks, "bn.plain.weight"})
    assert [weight for weight, _ in folds.values()] == ["grouped.weight"]


@pytest.mark.parametrize("power", [1, 2])
def test_values_and_scores_are_the_same_with_and_without_folding(net, power):
    x = torch.ones(1, 4, 5, 5, dtype=torch.float64)
    found = []
    for fold in (True, False):
        [value], weights = open_paths(net, x, power, leaves=True, fold=fold)
        numbers = value.mantissa.detach() * 2.0 ** int(value.exponent)
        found.append((numbers, saliencies(net, contract([value]), weights), weights["plain.weight"].detach()))
    (folded, scores, weight), (plain, expected, alone) = found
    torch.testing.assert_close(folded, plain, rtol=1e-12, atol=0)
    for name in net.masks:
        torch.testing.assert_close(scores[name], expected[name], rtol=1e-12, atol=0)
    ratio = weight.sum((1, 2, 3)) / alone.sum((1, 2, 3))
    assert not torch.allclose(ratio, ratio[:1])  # the scale of the norm is in the folded weight
