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
@pytest.mark.parametrize("scorer", ["magnitude", dict(type="sparsegpt"), "cap", dict(type="px", rounds=3)])
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


def test_a_ticket_of_a_part_of_the_model_is_refused(model, batches):
    ticket = pxframe.prune(model, batches, scorer="magnitude", sparsity=0.5)
    with pytest.raises(PxframeError, match="the ticket fits its part '0', and not the model as a whole"):
        pxframe.refit(nn.Sequential(model), ticket, batches)


def test_obs_does_not_undo_training(model, batches):
    def train(net, ticket, start=0, stop=None):
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.mul_(3)
        ticket.apply(net)

    asked = dict(scorer="ltr", sparsity=0.5, rounds=2, train=train, exclude=["last.*"])
    with pytest.raises(PxframeError, match=r"scorer 'ltr' gives weights .* take refit 'bn'"):
        pxframe.prune(model, batches, refit="obs", **asked)
    ticket = pxframe.prune(model, batches, **asked)
    with pytest.raises(PxframeError, match="those of a trained network"):
        pxframe.refit(model, ticket, batches, "obs")
    refitted = pxframe.refit(model, ticket, batches, "bn")
    assert torch.equal(refitted.start["first.weight"], ticket.start["first.weight"])
    assert not torch.equal(refitted.start["norm.running_mean"], ticket.start["norm.running_mean"])


@pytest.mark.parametrize("refit", ["rescale", "reinit"])
def test_fan_in_is_that_of_outputs_in_the_first_dimension(refit):
    turned = nn.Sequential(nn.ConvTranspose2d(2, 4, 3), nn.Conv2d(4, 2, 1))
    data = [(torch.randn(2, 2, 5, 5), None)]
    with pytest.raises(PxframeError, match=f"refit '{refit}': 0.weight has its inputs"):
        pxframe.prune(turned, data, scorer="magnitude", sparsity=0.5, refit=refit)
    ticket = pxframe.prune(turned, data, scorer="magnitude", sparsity=0.5)
    with pytest.raises(PxframeError, match=f"refit '{refit}': 0.weight has its inputs"):
        pxframe.refit(turned, ticket, data, refit)


def test_obs_leaves_a_weight_that_is_used_elsewhere_too():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.middle = nn.Embedding(7, 4), nn.Linear(4, 4)
            self.head = nn.Linear(4, 7, bias=False)
            self.head.weight = self.embedding.weight

        def forward(self, x):
            return self.head(self.middle(self.embedding(x)).relu().mean(1))

    torch.manual_seed(0)
    tied = Tied()
    data = [(torch.randint(0, 7, (30, 3)), None)]
    ticket = pxframe.prune(tied, data, scorer="magnitude", sparsity=0.4, refit="obs")
    assert list(ticket.start) == ["middle.weight"]


def test_obs_says_so_where_it_changes_nothing(caplog):
    torch.manual_seed(0)
    normed = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)))
    with caplog.at_level("WARNING", logger="pxframe"):
        pxframe.prune(normed, [(torch.randn(20, 4), None)], scorer="magnitude", sparsity=0.5, refit="obs")
    assert "refit 'obs': no prunable weight" in caplog.text


def test_a_refit_between_rounds_needs_rounds(model, batches):
    with pytest.raises(PxframeError, match="when='between' stands between rounds"):
        pxframe.prune(model, batches, scorer="magnitude", sparsity=0.5, refit=dict(type="bn", when="between"))
