"""Widths against a count of all paths of a small network, unit by unit."""

import itertools

import pytest
import torch
from torch import nn

import pxframe
from pxframe.base.errors import PxframeError
from pxframe.evidence.width import Width, depth, widths
from pxframe.ticket.ticket import Ticket


class Residual(nn.Module):
    """x -> a -> relu -> (b -> relu -> c) + identity -> d"""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c, self.d = (nn.Linear(n, m, bias=False) for n, m in ((3, 4), (4, 5), (5, 4), (4, 2)))

    def forward(self, x):
        x = self.a(x).relu()
        return self.d(x + self.c(self.b(x).relu()))


def on_a_path(masks):
    """By layer, the units of kept weights that all paths together use."""
    a, b, c, d = (masks[f"{name}.weight"].tolist() for name in "abcd")
    used = {name: set() for name in "abcd"}
    for i, j, o in itertools.product(range(3), range(4), range(2)):
        if a[j][i] and d[o][j]:
            used["a"].add(j)
            used["d"].add(o)
        for k, m in itertools.product(range(5), range(4)):
            if a[j][i] and b[k][j] and c[m][k] and d[o][m]:
                for name, unit in zip("abcd", (j, k, m, o), strict=True):
                    used[name].add(unit)
    return used


@pytest.mark.parametrize("seed", range(6))
def test_connected_units_are_those_of_all_paths(seed):
    torch.manual_seed(seed)
    model, inputs = Residual(), torch.randn(1, 3)
    masks = {name: torch.rand_like(p) < 0.35 for name, p in model.named_parameters()}
    found = widths(model, Ticket(masks), inputs)
    used = on_a_path(masks)
    assert found == [Width(name, len(mask), int(mask.any(1).sum()), len(used[name[0]])) for name, mask in masks.items()]
    assert depth(found) == sum(bool(units) for units in used.values())


def test_convolutions_count_their_channels():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 4, 1))
    masks = {name: torch.ones_like(p, dtype=torch.bool) for name, p in model.named_parameters() if p.ndim > 1}
    masks["0.weight"][1] = False  # so the first channel of what follows has nothing to read
    masks["3.weight"][2] = False
    masks["3.weight"][3, [0, 2]] = False  # it reads the empty channel alone
    found = widths(model, Ticket(masks), torch.randn(1, 2, 5, 5))
    assert found == [Width("0.weight", 3, 2, 2), Width("3.weight", 4, 3, 2)]
    assert depth(found) == 2


def test_a_ticket_of_another_network_is_refused():
    ticket = pxframe.prune(nn.Linear(3, 3), None, scorer="magnitude", sparsity=0.5)
    with pytest.raises(PxframeError, match="weight"):
        widths(Residual(), ticket, torch.randn(1, 3))
