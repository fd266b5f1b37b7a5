"""A refit after every round, against prunes of one round each: every one prunes what the one before has left."""

import copy

import pytest
import torch
from torch import nn

import pxframe
from pxframe.base.errors import PxframeError

ROUNDS, SPARSITY = 3, 0.8
CAP = dict(type="cap", relative=False)  # a relative damping is a mean over the weights that are left


@pytest.fixture
def model():
    torch.manual_seed(0)
    layers = nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6)
    return nn.Sequential(*layers, nn.ReLU(), nn.Flatten(), nn.Linear(6 * 16, 3)).double().eval()


@pytest.fixture
def batches():
    torch.manual_seed(1)
    images = torch.randn(2, 40, 2, 6, 6).double().cumsum(-1).cumsum(-2)  # pixels that depend on one another
    return [(some, torch.randint(0, 3, (40,))) for some in images]


def one_by_one(model, batches, scorer, refit):
    model = copy.deepcopy(model)
    for number in range(1, ROUNDS + 1):
        sparsity = 1 - (1 - SPARSITY) ** (number / ROUNDS)
        ticket = pxframe.prune(model, batches, scorer=scorer, sparsity=sparsity, rounds=1, refit=refit, exclude="7.*")
        ticket.rewind(model)
    return ticket.masks, model.state_dict()


@pytest.mark.parametrize("refit", ["bn", "obs"])
@pytest.mark.parametrize("scorer", ["magnitude", "px", "fisher", CAP])
def test_the_next_round_scores_the_refitted_network(model, batches, scorer, refit):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    masks, state = one_by_one(model, batches, scorer, refit)
    asked = dict(scorer=scorer, sparsity=SPARSITY, rounds=ROUNDS, exclude="7.*")
    once = pxframe.prune(model, batches, **asked, refit=refit)
    ticket = pxframe.prune(model, batches, **asked, refit=dict(type=refit, when="every"))
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
    assert ticket.meta["refit"]["when"] == "every"
    between = pxframe.prune(model, batches, **asked, refit=dict(type=refit, when="between"))
    assert not between.start
    assert between.meta["fingerprint"] == ticket.meta["fingerprint"] == once.meta["fingerprint"]
    for name, mask in masks.items():
        assert torch.equal(ticket.masks[name], mask), name
        assert torch.equal(between.masks[name], mask), name
    ticket.rewind(model)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, state[name], rtol=1e-6, atol=1e-8, msg=name)
    differs = any(not torch.equal(once.masks[name], mask) for name, mask in masks.items())
    assert differs or (refit == "bn" and scorer == "magnitude")  # which does not read the statistics


def test_rows_that_are_excluded_keep_their_weights(model, batches):
    attention = nn.MultiheadAttention(4, 2, batch_first=True).double()

    class Attends(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention, self.last = attention, nn.Linear(4, 2).double()

        def forward(self, x):
            return self.last(self.attention(x, x, x, need_weights=False)[0])

    torch.manual_seed(0)
    tokens = [(torch.randn(30, 3, 4).double(), None)]
    ticket = pxframe.prune(
        Attends().eval(),
        tokens,
        scorer="magnitude",
        sparsity=0.5,
        rounds=3,
        exclude=["attention.in_proj_weight[q]"],
        refit=dict(type="obs", when="every"),
    )
    assert torch.equal(ticket.start["attention.in_proj_weight"][:4], attention.in_proj_weight[:4])
    assert not torch.equal(ticket.start["attention.in_proj_weight"][8:], attention.in_proj_weight[8:])


def test_a_scorer_that_writes_into_the_refitted_network_is_told(model, batches):
    class Writes(pxframe.Scorer):
        name, needs, rounds = "writes", "inputs", 3

        def score(self, net, batches):
            if net.density < 0.5:
                next(iter(net.weights.values())).mul_(2)
            return {name: weight.abs() for name, weight in net.weights.items()}

    with pytest.raises(PxframeError, match=r"round 2 of 3 wrote into 0\.weight in place"):
        pxframe.prune(model, batches, scorer=Writes(), sparsity=SPARSITY, refit=dict(type="bn", when="every"))


@pytest.mark.parametrize(
    ("scorer", "why"), [("imp", "trains the network in every round"), ("force", "lets pruned weights return")]
)
def test_what_takes_no_refit_between_its_rounds(model, batches, scorer, why):
    with pytest.raises(PxframeError, match=f"scorer '{scorer}' {why}.*leave out 'when'"):
        pxframe.prune(model, batches, scorer=scorer, train=print, refit=dict(type="bn", when="every"))


def test_an_unknown_time_is_refused(model, batches):
    with pytest.raises(
        PxframeError, match="refit 'bn': 'when' must be one of 'last', 'every', 'between'; got 'always'"
    ):
        pxframe.prune(model, batches, scorer="magnitude", refit=dict(type="bn", when="always"))
