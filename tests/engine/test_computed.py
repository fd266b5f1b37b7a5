"""Weights that are computed from parameters: their scores against those of the same network with plain weights."""

import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations

import pxframe
from pxframe.network.net import Net
from pxframe_plugins.px.scorer import PX
from pxframe_plugins.synflow import SynFlow
from pxframe_plugins.synflow_l2 import SynFlowL2

SCORERS = {"px": (PX(), 2), "joint": (PX(variant="joint"), 2), "synflow": (SynFlow(), 1), "l2": (SynFlowL2(), 2)}


class Between(nn.Module):
    """A layer of two inputs and two outputs between two plain ones."""

    def __init__(self, layer):
        super().__init__()
        self.first, self.layer, self.last = nn.Linear(3, 2), layer, nn.Linear(2, 2)

    def forward(self, x):
        return self.last(torch.relu(1 + self.layer(torch.relu(1 + self.first(x)))))


class Made(nn.Module):
    """A linear layer whose weight a function makes from parameters."""

    def __init__(self, make, **shapes):
        super().__init__()
        for name, shape in shapes.items():
            setattr(self, name, nn.Parameter(torch.randn(shape)))
        self.make = make

    def forward(self, x):
        return F.linear(x, self.make(self))


def standardised(layer):
    """As in weight-standardised convolutions, by way of batch norm."""
    rows = layer.w.reshape(1, len(layer.w), -1)
    return F.batch_norm(rows, None, None, weight=layer.gain, training=True, eps=1e-5).reshape_as(layer.w)


def by_hand(layer):
    centred = layer.w - layer.w.mean(1, keepdim=True)
    return centred / (layer.w.var(1, keepdim=True) + 1e-3).sqrt()


def weight_norm():
    return parametrizations.weight_norm(nn.Linear(2, 2, bias=False))


def spectral_norm():
    return parametrizations.spectral_norm(nn.Linear(2, 2, bias=False)).eval()


def old_weight_norm():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nn.utils.weight_norm(nn.Linear(2, 2, bias=False))


#: Entry by entry: name -> (the layer, its parameter)
ENTRYWISE = {
    "weight_norm": (weight_norm, "parametrizations.weight.original1"),
    "old weight_norm": (old_weight_norm, "weight_v"),
    "spectral_norm": (spectral_norm, "parametrizations.weight.original"),
    "batch norm": (lambda: Made(standardised, w=(2, 2), gain=(2,)), "w"),
    "by hand": (lambda: Made(by_hand, w=(2, 2)), "w"),
    "tanh": (lambda: Made(lambda m: torch.tanh(m.w), w=(2, 2)), "w"),
    "with a constant": (lambda: Made(lambda m: 3 * m.w + 0.5, w=(2, 2)), "w"),
    "gain": (lambda: Made(lambda m: m.w * m.gain[:, None], w=(2, 2), gain=(2,)), "w"),
}


def scored(model, scorer, batches, kept=None):
    names = [n for n, p in model.named_parameters() if p.ndim > 1 and p.shape[1] > 1]
    masks = {n: torch.ones_like(model.get_parameter(n), dtype=torch.bool) for n in names}
    return SCORERS[scorer][0].score(Net(model, masks | (kept or {})), batches)


def case(layer):
    torch.manual_seed(0)
    model = Between(layer).double().eval()
    x = torch.randn(4, 3, dtype=torch.float64)
    with torch.no_grad():  # the weight that is used
        inputs = torch.eye(2, dtype=torch.float64)
        used = model.layer(inputs).T
    plain = Between(nn.Linear(2, 2, bias=False)).double().eval()
    plain.first, plain.last = model.first, model.last
    with torch.no_grad():
        plain.layer.weight.copy_(used)
    return model, plain, [(x, torch.zeros(4, dtype=torch.long))]


@pytest.mark.parametrize("scorer", SCORERS)
@pytest.mark.parametrize("kind", ENTRYWISE)
def test_a_score_goes_to_the_entry_that_the_weight_is_computed_from(kind, scorer):
    torch.manual_seed(1)
    build, name = ENTRYWISE[kind]
    model, plain, batches = case(build())
    found, expected = scored(model, scorer, batches), scored(plain, scorer, batches)
    assert torch.allclose(found[f"layer.{name}"], expected["layer.weight"], rtol=1e-9)
    assert expected["layer.weight"].any()
    for outer in ("first.weight", "last.weight"):
        assert torch.allclose(found[outer], expected[outer], rtol=1e-9)


@pytest.mark.parametrize("scorer", SCORERS)
def test_a_pruned_entry_carries_nothing(scorer):
    torch.manual_seed(1)
    model, plain, batches = case(weight_norm())
    name = "layer.parametrizations.weight.original1"
    mask = torch.tensor([[True, False], [True, True]])
    with torch.no_grad():
        v, g = model.layer.parametrizations.weight.original1, model.layer.parametrizations.weight.original0
        plain.layer.weight.copy_(g * (v * mask) / (v * mask).norm(dim=1, keepdim=True))
    found = scored(model, scorer, batches, {name: mask})
    expected = scored(plain, scorer, batches, {"layer.weight": mask})
    assert torch.allclose(found[name], expected["layer.weight"], rtol=1e-9)
    assert found[name][0, 1] == 0


@pytest.mark.parametrize("scorer", SCORERS)
def test_a_low_rank_weight_shares_its_scores_by_magnitude(scorer):
    """w = A B + C: of an entry's score, a_ik b_kj gets its share of all magnitudes (to the reading's power)."""
    torch.manual_seed(1)
    model, plain, batches = case(Made(lambda m: m.a @ m.b + m.c, a=(2, 3), b=(3, 2), c=(2, 2)))
    found, whole = scored(model, scorer, batches), scored(plain, scorer, batches)["layer.weight"]
    power = SCORERS[scorer][1]
    a, b, c = (getattr(model.layer, n).detach().abs() ** power for n in "abc")
    pairs = a[:, :, None] * b[None]  # [i, k, j]
    share = whole[:, None, :] * pairs / (pairs.sum(1) + c)[:, None, :]
    assert torch.allclose(found["layer.a"], share.sum(2), rtol=1e-9)
    assert torch.allclose(found["layer.b"], share.sum(0), rtol=1e-9)
    assert torch.allclose(found["layer.c"], whole * c / (pairs.sum(1) + c), rtol=1e-9)


@pytest.mark.parametrize("scorer", SCORERS)
def test_parts_of_a_weight_that_are_joined_get_their_own_scores(scorer):
    torch.manual_seed(1)
    model, plain, batches = case(Made(lambda m: torch.cat([m.a, torch.ones(1, 2).to(m.a)]), a=(1, 2)))
    masks = {n: torch.ones_like(p, dtype=torch.bool) for n, p in model.named_parameters() if p.ndim > 1}
    found = SCORERS[scorer][0].score(Net(model, masks), batches)
    expected = scored(plain, scorer, batches)
    assert torch.allclose(found["layer.a"], expected["layer.weight"][:1], rtol=1e-9)


def test_a_weight_that_no_parameter_carries_is_named():
    model = Between(Made(lambda m: m.w.norm() * torch.ones(2, 2), w=(2, 2)))
    with pytest.raises(pxframe.PxframeError, match=r"on a weight before it is used .*of layer 'layer' \(Made\)"):
        pxframe.score(model, [(torch.randn(4, 3), None)])
