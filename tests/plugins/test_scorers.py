"""Each scorer against an independent way to the same numbers."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import pxframe
from pxframe_plugins.dense import Dense


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, stride=2), nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(3, 3)
    ).double()


@pytest.fixture
def batches():
    torch.manual_seed(1)
    return [(torch.randn(4, 2, 6, 6, dtype=torch.float64), torch.arange(4) % 3) for _ in range(2)]


@pytest.mark.parametrize(("scorer", "power"), [("synflow", 1), ("synflow_l2", 2)])
def test_synflow_equals_autograd_of_the_rewritten_network(model, batches, scorer, power):
    """The papers' own way: rewrite the layers, feed ones, differentiate."""
    model.eval()
    nn.init.normal_(model[1].weight)
    nn.init.uniform_(model[1].running_var, 0.5, 2.0)
    found = pxframe.score(model, batches, scorer=scorer)
    conv = model[0].weight.detach().abs().pow(power).requires_grad_()
    linear = model[5].weight.detach().abs().pow(power).requires_grad_()
    scale = (model[1].weight.abs() / (model[1].running_var + model[1].eps).sqrt()).pow(power).detach()
    x = F.conv2d(torch.ones(1, 2, 6, 6, dtype=torch.float64), conv, stride=2) * scale.view(1, 3, 1, 1)
    total = (F.max_pool2d(x, 2).flatten(1) @ linear.T).sum()
    expected = torch.autograd.grad(total, [conv, linear])
    assert torch.allclose(found["0.weight"], expected[0] * conv)
    assert torch.allclose(found["5.weight"], expected[1] * linear)


def test_magnitude(model):
    scores = pxframe.score(model, None, scorer="magnitude")
    assert all(torch.equal(scores[n], model.get_parameter(n).abs()) for n in scores)


def test_dense_keeps_everything(model):
    scores = pxframe.score(model, None, scorer="dense")
    assert all(torch.equal(scores[n], torch.ones_like(model.get_parameter(n))) for n in scores)
    ticket = pxframe.prune(model, None, scorer="dense", sparsity=Dense.defaults["sparsity"])
    assert ticket.kept == ticket.total == sum(model.get_parameter(n).numel() for n in ("0.weight", "5.weight"))


def test_random_is_uniform_and_seeded():
    model = nn.Linear(200, 100)
    a, b, c = (pxframe.score(model, None, scorer="random", seed=s)["weight"] for s in (0, 0, 1))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    counts = torch.histc(a, 20, 0, 1)
    expected = a.numel() / 20
    chi_squared = float(((counts - expected) ** 2 / expected).sum())
    assert chi_squared < 19 + 5 * math.sqrt(2 * 19)


@pytest.mark.parametrize(("variant", "same"), [("paper", True), ("joint", False)])
def test_px_is_synflow_l2_where_the_classifier_is_left_out(model, batches, variant, same):
    """A dense last layer makes the number of active paths, c_k, equal for all outputs k."""
    px, synflow = (
        pxframe.prune(model, batches, scorer=scorer, sparsity=0.6, rounds=3, exclude="5.*")
        for scorer in ({"type": "px", "variant": variant}, "synflow_l2")
    )
    assert torch.equal(px.masks["0.weight"], synflow.masks["0.weight"]) == same


def test_px_calibrated_is_paper_with_the_batch_variance_for_running_variance(model, batches):
    """The same numbers as `paper` on a copy whose BN carries the batch's own statistics."""
    joined = [(torch.cat([x for x, _ in batches]), None)]
    copy = nn.Sequential(*model).double()
    found = pxframe.score(copy, joined, variant="calibrated")
    conv = model[0](joined[0][0])
    model[1].running_mean.copy_(conv.mean((0, 2, 3)).detach())
    model[1].running_var.copy_(conv.var((0, 2, 3), correction=0).detach())
    expected = pxframe.score(model, joined, variant="paper")
    assert all(torch.allclose(found[n], expected[n]) for n in expected)


@pytest.mark.parametrize("variant", ["calibrated", "joint_calibrated"])
def test_constant_channels_keep_their_running_variance(variant):
    """A chain of them, each scaled by 1 / eps, would be beyond all numbers, and what they are multiplied with NaN."""
    torch.manual_seed(0)
    layers = [(nn.Conv2d(3 if n == 0 else 4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)) for n in range(14)]
    for number, (conv, norm) in enumerate(layers):
        with torch.no_grad():
            conv.weight[0] *= torch.tensor([number > 0, *[False] * (conv.in_channels - 1)]).view(-1, 1, 1)
            norm.running_var.fill_(2.0)
    model = nn.Sequential(*(m for pair in layers for m in (*pair, nn.ReLU())), nn.Flatten(), nn.Linear(4 * 16, 2))
    model, x = model.eval(), torch.rand(6, 3, 4, 4)
    found = pxframe.score(model, [(x, None)], scorer={"type": "px", "variant": variant})
    values = x
    for conv, norm in layers:
        values = conv(values)
        norm.running_mean.copy_(values.mean((0, 2, 3)).detach())
        norm.running_var[1:] = values.var((0, 2, 3), correction=0).detach()[1:]
        values = norm(values).relu()
    same = {"calibrated": "paper", "joint_calibrated": "joint"}[variant]
    expected = pxframe.score(model, [(x, None)], scorer={"type": "px", "variant": same})
    for name, scores in expected.items():
        assert torch.allclose(found[name], scores, rtol=1e-3)
        assert scores.any()


def test_px_reads_nothing_of_the_labels(model, batches):
    a = pxframe.score(model, batches)
    b = pxframe.score(model, [(x, None) for x, _ in batches])
    assert all(torch.equal(a[n], b[n]) for n in a)
