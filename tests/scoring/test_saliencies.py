"""From R to scores: gradients that share memory, and scores that leave their dtype."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import pxframe
from pxframe.engine.scaled import Scaled
from pxframe.network.net import Net
from pxframe.scoring.saliencies import gathered_saliencies, scaled_saliencies


class Sum(nn.Module):
    """A layer whose weight is the sum of two parameters, or two in a row added to a third."""

    def __init__(self, shapes):
        super().__init__()
        self.parts = nn.ParameterList([nn.Parameter(torch.rand(shape) + 0.5) for shape in shapes])

    def forward(self, x):
        *rows, last = self.parts
        return F.linear(x, torch.cat(list(rows)) + last)


SHAPES = {"two": [(4, 3), (4, 3)], "rows": [(2, 3), (2, 3), (4, 3)]}


def net_of(model):
    return Net(model, {name: torch.ones_like(p, dtype=torch.bool) for name, p in model.named_parameters()})


@pytest.mark.parametrize("variant", ["paper", "joint"])
def test_parameters_of_one_sum_are_scored_by_their_own_values(variant):
    torch.manual_seed(0)
    model, x = Sum(SHAPES["two"]), torch.rand(2, 3)
    scores = pxframe.score(model, [(x, None)], dict(type="px", variant=variant))
    one, other = (scores[name] / p**2 for name, p in model.named_parameters())
    assert torch.allclose(one, other)  # dR/du is the same for both


@pytest.mark.parametrize("shapes", SHAPES)
def test_gradients_that_share_memory_are_multiplied_apart(shapes):
    """Torch gives the parts of a ``cat`` as views of the gradient that another weight has, too."""
    torch.manual_seed(0)
    model, x = Sum(SHAPES[shapes]), torch.rand(2, 3)
    net = net_of(model)
    exact = {name: p.detach() for name, p in model.named_parameters()}
    with torch.enable_grad():
        leaves = {name: p.clone().requires_grad_() for name, p in exact.items()}
        found = torch.autograd.grad(2 * net(x, leaves).sum(), list(leaves.values()))
    expected = {name: g * p for (name, p), g in zip(exact.items(), found, strict=True)}

    def fresh():
        return {name: p.clone().requires_grad_() for name, p in exact.items()}

    def total(weights):
        with torch.enable_grad():
            return Scaled(net(x, weights).sum(), 0, 0.0)

    weights = fresh()
    for name, score in scaled_saliencies(net, total(weights), weights).items():
        assert torch.allclose(2 * score.mantissa, expected[name]), name
    weights = fresh()
    scores = gathered_saliencies(net, ((total(weights), 1) for _ in range(2)), weights)
    for name, score in scores.items():
        assert torch.allclose(score, expected[name]), name


@pytest.mark.parametrize("compute_aware", [False, True])
def test_scores_of_a_channel_whose_weights_have_huge_scores_are_finite(compute_aware):
    model = nn.Sequential(*(nn.Linear(512, 512, bias=False) for _ in range(30)))
    for layer in model:
        nn.init.constant_(layer.weight, 30.0)
    granularity = dict(type="channel", compute_aware=compute_aware)
    ticket = pxframe.prune(
        model, [(torch.ones(1, 512), None)], "synflow", granularity=granularity, sparsity=0.01, rounds=1
    )
    assert ticket.kept == round(30 * 512 * 0.99) * 512
