"""Refitting a ticket gives what a prune with that refit gives."""

import copy

import pytest
import torch
from torch import nn

import pxframe
from pxframe.base.errors import PxframeError


class Attends(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Linear(4, 4), nn.BatchNorm1d(4)
        self.attention, self.last = nn.MultiheadAttention(4, 2, batch_first=True), nn.Linear(4, 2)

    def forward(self, x):
        x = self.norm(self.first(x).mT).mT
        return self.last(self.attention(x, x, x, need_weights=False)[0].mean(1))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Attends().double().eval()


@pytest.fixture
def batches():
    torch.manual_seed(1)
    return [(torch.randn(20, 3, 4).double(), torch.randint(0, 2, (20,))) for _ in range(2)]


@pytest.mark.parametrize("refit", ["bn", "obs", "rescale", "reinit", dict(type="obs", sequential=False)])
@pytest.mark.parametrize("scorer", ["magnitude", dict(type="sparsegpt"), "cap", "px"])
def test_it_equals_a_prune_with_that_refit(model, batches, scorer, refit):
    before = copy.deepcopy(model.state_dict())
    asked = dict(scorer=scorer, sparsity=0.5, exclude=["last.*", "attention.in_proj_weight[q]"], seed=3)
    wanted = pxframe.prune(model, batches, refit=refit, **asked)
    plain = pxframe.prune(model, batches, **asked)
    start = {name: value.clone() for name, value in plain.start.items()}
    found = pxframe.refit(model, plain, batches, refit, seed=3)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
    assert plain.start.keys() == start.keys()
    assert all(torch.equal(plain.start[name], value) for name, value in start.items())
    assert found.meta == wanted.meta
    assert found.start.keys() == wanted.start.keys()
    for name, value in wanted.start.items():
        assert torch.equal(found.start[name], value), name
    for name, mask in wanted.masks.items():
        assert torch.equal(found.masks[name], mask), name


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(refit="best"), "there is no refit 'best'"),
        (dict(refit=dict(type="obs", when="every")), "leave out 'when'"),
        (dict(batches=[]), "refit 'obs' reads inputs: 'batches' gave no"),
    ],
)
def test_mistakes_cost_one_line(model, batches, options, words):
    ticket = pxframe.prune(model, batches, scorer="magnitude", sparsity=0.5)
    with pytest.raises(PxframeError, match=words):
        pxframe.refit(**{"model": model, "ticket": ticket, "batches": batches, **options})


def test_a_ticket_of_another_network_is_refused(model, batches):
    ticket = pxframe.prune(nn.Linear(3, 3), None, scorer="magnitude", sparsity=0.5)
    with pytest.raises(PxframeError, match="weight"):
        pxframe.refit(model, ticket, batches)
