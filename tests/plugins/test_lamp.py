"""LAMP against its definition as a double loop."""

import torch
from torch import nn

import pxframe


def plain(weight, mask):
    """The definition: a weight's square over the sum of the squares behind it in ascending order, itself included."""
    flat, kept = (weight.double() * mask).flatten().tolist(), mask.flatten().tolist()
    order = sorted((i for i, k in enumerate(kept) if k), key=lambda i: (abs(flat[i]), i))
    scores = [0.0] * len(flat)
    for at, u in enumerate(order):
        total = 0.0
        for v in order[at:]:
            total += flat[v] ** 2
        scores[u] = flat[u] ** 2 / total if flat[u] else 0.0
    return torch.tensor(scores, dtype=torch.float64).view(weight.shape)


def network():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4, 5), nn.Linear(5, 2))
    with torch.no_grad():
        model[2].weight.mul_(1e-25)  # the squares of which float32 does not hold
        model[2].weight.view(-1)[3:6] = model[2].weight.view(-1)[2]  # ties
        model[2].weight.view(-1)[7] = 0
    return model


def test_it_is_the_definition_of_what_is_kept():
    model = network()
    for share in (1.0, 0.6):
        masks = {n: torch.rand(p.shape) <= share for n, p in model.named_parameters() if p.ndim > 1}
        found = pxframe.score(model, None, "lamp", masks=masks)
        for name, mask in masks.items():
            expected = plain(model.get_parameter(name).detach(), mask)
            torch.testing.assert_close(found[name], expected, rtol=1e-12, atol=0)
            assert found[name].max() == 1


def test_of_equal_weights_the_later_scores_higher():
    model = nn.Linear(4, 1, bias=False)
    nn.init.constant_(model.weight, -0.5)
    scores = pxframe.score(model, None, "lamp")["weight"].flatten()
    torch.testing.assert_close(scores, 1 / torch.tensor([4.0, 3.0, 2.0, 1.0]).double())


def test_a_layer_of_zeros_scores_zero():
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    nn.init.zeros_(model[0].weight)
    assert (pxframe.score(model, None, "lamp")["0.weight"] == 0).all()


def test_no_layer_is_emptied_and_within_a_layer_the_order_is_of_magnitudes():
    model = network()
    ticket = pxframe.prune(model, None, "lamp", sparsity=0.9, rounds=3)
    assert not ticket.emptied
    for name, mask in ticket.masks.items():
        magnitudes = model.get_parameter(name).detach().abs()
        if not mask.all():
            assert magnitudes[mask].min() >= magnitudes[~mask].max()
