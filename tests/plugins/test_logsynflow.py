"""LogSynFlow against an enumeration of all paths, and against logarithms where the gradient fits no float."""

import math
from collections import defaultdict
from itertools import product

import pytest
import torch
from torch import nn

import pxframe
from pxframe.plugin import host


class Skip(nn.Module):
    """3 inputs, 4 hidden units with BN, 4 more beside a skip, 2 outputs."""

    def __init__(self):
        super().__init__()
        self.first, self.bn = nn.Linear(3, 4), nn.BatchNorm1d(4)
        self.inner, self.last = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x):
        x = self.bn(self.first(x)).relu()
        return self.last((x + self.inner(x)).relu())


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = Skip().double().eval()
    nn.init.normal_(model.bn.weight)
    nn.init.uniform_(model.bn.running_var, 0.5, 2.0)
    with torch.no_grad():
        model.first.weight.mul_(1e-4)  # then dR/d|last| is far below 1, where log(1 + d) is d
        model.last.weight[0].mul_(1e5)
    return model


def gradients(model, masks):
    """dR/d|theta| by weight: every path of the network, with each of its weights left out in turn."""
    theta = {n: (model.get_parameter(n).detach().abs() * masks[n]).tolist() for n in masks}
    scale = (model.bn.weight.detach().abs() / (model.bn.running_var + model.bn.eps).sqrt()).tolist()
    found = defaultdict(float)
    for i, a, b, k in product(range(3), range(4), range(4), range(2)):
        edges = [("first.weight", a, i), ("last.weight", k, b)]
        paths = [[*edges, ("inner.weight", b, a)]] + ([edges] if a == b else [])
        for path in paths:
            for left_out in path:
                others = [theta[name][row][column] for name, row, column in path if (name, row, column) != left_out]
                found[left_out] += scale[a] * math.prod(others)
    return found


@pytest.mark.parametrize("masked", [False, True])
def test_scores_equal_the_enumeration_of_all_paths(model, masked):
    names = ["first.weight", "inner.weight", "last.weight"]
    shapes = [model.get_parameter(n).shape for n in names]
    masks = {
        n: torch.rand(s) < 0.7 if masked else torch.ones(s, dtype=torch.bool)
        for n, s in zip(names, shapes, strict=True)
    }
    found = pxframe.score(model, [(torch.randn(5, 3).double(), None)], scorer="logsynflow", masks=masks)
    expected = gradients(model, masks)
    assert max(expected.values()) > 1e4
    assert 0 < min(v for v in expected.values() if v) < 1e-3
    for name in names:
        for row, column in product(*map(range, found[name].shape)):
            if masks[name][row, column]:
                theta = abs(float(model.get_parameter(name).detach()[row, column]))
                score = theta * math.log1p(expected[name, row, column])
                assert float(found[name][row, column]) == pytest.approx(score, rel=1e-12)


def logarithms(model):
    """log dR/d|theta| of a chain of linear layers fed ones, by sums of logarithms."""
    logs = [layer.weight.detach().double().abs().log() for layer in model]
    into = [torch.zeros(model[0].in_features, dtype=torch.float64)]
    for log in logs:
        into.append((log + into[-1]).logsumexp(1))
    out_of, found = torch.zeros(model[-1].out_features, dtype=torch.float64), []
    for log, before in zip(reversed(logs), reversed(into[:-1]), strict=True):
        found.insert(0, out_of[:, None] + before)
        out_of = (log + out_of[:, None]).logsumexp(0)
    return found


@pytest.mark.parametrize("scale", [1e3, 1.0, 1e-3])
def test_gradients_beyond_any_float(scale):
    """120 layers: dR/d|theta| from 2^1900 down to 2^-500, in a float32 model."""
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(20, 20, bias=False) for _ in range(120)))
    with torch.no_grad():
        for layer in model:
            layer.weight.normal_().mul_(scale)
    expected = logarithms(model)
    top = max(float(e.max()) for e in expected)
    assert {1e3: top > 1024 * math.log(2), 1.0: 89 < top < 700, 1e-3: top < -300}[scale]
    found = pxframe.score(model, [(torch.ones(1, 20), None)], scorer="logsynflow")
    for layer, log, score in zip(model, expected, found.values(), strict=True):
        small = scale < 1  # then log(1 + d) is d
        reference = layer.weight.detach().double().abs() * (log.exp() if small else log + torch.log1p((-log).exp()))
        assert torch.allclose(score, reference, rtol=1e-12, atol=0)


def test_a_branch_that_float32_loses_beside_another_keeps_its_logarithm():
    class Lopsided(nn.Module):
        def __init__(self):
            super().__init__()
            self.short = nn.Linear(16, 16, bias=False)
            self.long = nn.Sequential(*(nn.Linear(16, 16, bias=False) for _ in range(50)))

        def forward(self, x):
            return self.short(x) + self.long(x)

    model = Lopsided()
    for parameter in model.parameters():
        nn.init.constant_(parameter, -3.0)
    batches = [(torch.randn(2, 16), None)]
    found = pxframe.score(model, batches, scorer="logsynflow")
    assert found["long.7.weight"].flatten().tolist() == pytest.approx([3 * math.log1p(48.0**49)] * 256, rel=1e-12)
    assert found["short.weight"].flatten().tolist() == pytest.approx([3 * math.log(2)] * 256, rel=1e-12)
    assert not pxframe.score(model, batches, scorer="synflow")["short.weight"].any()  # what float32 makes of it


def test_the_model_stays_rounds_are_exact_and_runs_repeat(model):
    class Watch:
        def __init__(self):
            self.kept = []

        @pxframe.hookimpl
        def pxframe_round_done(self, density, masks):
            self.kept.append((round(density * 36), sum(int(m.sum()) for m in masks.values())))

    model.train()
    with torch.no_grad():
        model.first.weight.mul_(1e4)  # or nothing of it is left
    before = {n: t.clone() for n, t in model.state_dict().items()}
    batches, watch, tickets = [(torch.randn(5, 3).double(), None)], Watch(), []
    host.host().manager.register(watch)
    try:
        for _ in range(2):
            tickets.append(pxframe.prune(model, batches, scorer="logsynflow", sparsity=0.7, rounds=6))
    finally:
        host.host().manager.unregister(watch)
    assert len(watch.kept) == 12
    assert all(asked == kept for asked, kept in watch.kept)
    assert all(torch.equal(m, tickets[1].masks[n]) for n, m in tickets[0].masks.items())
    assert all(torch.equal(before[n], t) for n, t in model.state_dict().items())
    assert all(m.training for m in model.modules())


def test_a_network_cut_through_scores_zero(model):
    masks = {
        n: torch.full_like(model.get_parameter(n), n != "last.weight", dtype=torch.bool)
        for n in ("first.weight", "last.weight")
    }
    found = pxframe.score(model, [(torch.randn(5, 3).double(), None)], scorer="logsynflow", masks=masks)
    assert not found["first.weight"].any()
