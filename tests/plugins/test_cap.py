"""CAP against Optimal Brain Surgeon with explicit inverses, one block and one weight at a time."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import pxframe
from pxframe_plugins import cap

DAMPING = 1e-3


def network():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 3, 3, stride=2), nn.BatchNorm2d(3), nn.Tanh(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(3, 3)
    )
    nn.init.uniform_(model[1].running_var, 0.5, 2.0)
    return model.double()


def data(sizes=(4, 5)):
    torch.manual_seed(1)
    return [(torch.randn(n, 2, 6, 6, dtype=torch.float64), torch.arange(n) % 3) for n in sizes]


def masks_of(model, share):
    torch.manual_seed(2)
    return {n: torch.rand(p.shape) < share for n, p in model.named_parameters() if p.ndim > 1}


def gradients(model, masks, batches, size):
    """By name, ``[m, entries]``: of minibatches of ``size`` samples, at the masked weights, in eval mode."""
    model.eval()
    values = {n: p.detach() * masks.get(n, 1) for n, p in model.named_parameters()}
    values = {n: v.requires_grad_() for n, v in values.items()}
    found = []
    for x, y in batches:
        for part in zip(x.split(size), y.split(size), strict=True):
            loss = F.cross_entropy(torch.func.functional_call(model, values, (part[0],)), part[1])
            found.append([g.flatten() for g in torch.autograd.grad(loss, [values[n] for n in masks])])
    return {n: torch.stack(g) for n, g in zip(masks, zip(*found, strict=True), strict=True)}


def blocks(count, size):
    return [list(range(start, min(start + size, count))) for start in range(0, count, size)]


def matrix(rows, damping=DAMPING, relative=False):
    scale = rows.square().mean() if relative else 1.0
    return rows.T @ rows / len(rows) + damping * scale * torch.eye(rows.shape[1], dtype=torch.float64)


def surgeon(a, weights):
    """Removes one weight after the other; the inverse is taken anew of what is left each time: losses added up."""
    left, w, total, scores = list(range(len(weights))), weights.clone(), 0.0, torch.zeros_like(weights)
    while left:
        inverse = torch.linalg.inv(a[left][:, left])
        losses = w[left] ** 2 / (2 * inverse.diagonal())
        at = int(losses.argmin())
        total += float(losses[at])
        scores[left[at]] = total
        w[left] = w[left] - inverse[:, at] * w[left[at]] / inverse[at, at]
        left.pop(at)
    return scores


def quadratic(a, weights, gone):
    """The weights with those in ``gone`` at zero that add the least to the quadratic form, and what they add."""
    kept = [i for i in range(len(weights)) if i not in gone]
    new = torch.zeros_like(weights)
    new[kept] = weights[kept] + torch.linalg.solve(a[kept][:, kept], a[kept][:, list(gone)] @ weights[list(gone)])
    return new, float((new - weights) @ a @ (new - weights)) / 2


def near(found, expected, tolerance=1e-6):
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=1e-12)


@pytest.mark.parametrize("size", [4, 6, 100])
@pytest.mark.parametrize("share", [1.0, 0.7])
@pytest.mark.parametrize("of", ["samples", 2])
@pytest.mark.parametrize("relative", [True, False])
def test_scores_are_those_of_explicit_inverses(size, share, of, relative):
    model, batches = network(), data()
    masks = masks_of(model, share)
    options = dict(block=size, damping=DAMPING, relative=relative, gradients=of)
    scores = pxframe.score(model, batches, "cap", masks=masks, **options)
    found = gradients(model, masks, batches, 1 if of == "samples" else of)
    for name, rows in found.items():
        kept, weights = masks[name].flatten(), model.get_parameter(name).detach().flatten()
        expected = torch.zeros(len(kept), dtype=torch.float64)
        for block in blocks(len(kept), size):
            left = [i for i in block if kept[i]]
            expected[left] = surgeon(matrix(rows[:, left], DAMPING, relative), weights[left])
        near(scores[name].flatten(), expected)


def test_blocks_of_real_size_at_the_paper_s_damping():
    """Gradients that span fewer dimensions than a block of 32, and weights that have gone before, in two blocks."""
    torch.manual_seed(0)
    rows = 1e-2 * torch.randn(2, 20, 32, dtype=torch.float64)
    weights, ranked = 0.1 * torch.randn(2, 32, dtype=torch.float64), torch.rand(2, 32) < 0.8
    weights[1, 3], ranked[1, 3] = 0.0, True
    a = torch.stack([matrix(g * r, 1e-8) for g, r in zip(rows, ranked, strict=True)])
    scores, info = cap._losses(a.clone(), weights, ranked, ranked)
    assert not info.any()
    for block in range(2):
        left = ranked[block].nonzero().flatten()
        near(scores[block, left], surgeon(a[block][left][:, left], weights[block, left]))
        assert not scores[block, ~ranked[block]].any()


def test_each_removal_of_six_is_the_best_there_is():
    """Against every single removal by least squares; the sum of the losses is that of removing all at once."""
    torch.manual_seed(0)
    rows, weights = torch.randn(5, 6, dtype=torch.float64), torch.randn(6, dtype=torch.float64)
    a = matrix(rows)
    kept = torch.ones(1, 6, dtype=torch.bool)
    scores = cap._losses(a.unsqueeze(0), weights.unsqueeze(0), kept, kept)[0][0]
    gone = []
    for _ in range(6):
        costs = {i: quadratic(a, weights, [*gone, i])[1] for i in range(6) if i not in gone}
        gone.append(min(costs, key=costs.get))
        near(scores[gone[-1]], torch.tensor(costs[gone[-1]], dtype=torch.float64))
    assert gone == scores.argsort().tolist()
    best = min(quadratic(a, weights, pair)[1] for pair in itertools.combinations(range(6), 2))
    assert quadratic(a, weights, gone[:2])[1] >= best  # greedy need not be the best of all


def test_the_inverse_is_the_one_of_rank_one_updates():
    """The paper's recursion, at its damping."""
    torch.manual_seed(0)
    rows, weights = 1e-3 * torch.randn(40, 8, dtype=torch.float64), torch.randn(8, dtype=torch.float64)
    inverse = torch.eye(8, dtype=torch.float64) / 1e-8
    for g in rows:
        u = inverse @ g
        inverse = inverse - torch.outer(u, u) / (len(rows) + g @ u)
    kept = torch.ones(1, 8, dtype=torch.bool)
    scores, _ = cap._losses(matrix(rows, 1e-8).unsqueeze(0), weights.unsqueeze(0), kept, kept)
    near(scores[0].min(), (weights**2 / (2 * inverse.diagonal())).min())


@pytest.mark.parametrize("rounds", [1, 3])
def test_the_ticket_starts_from_the_surgeon_s_weights(rounds):
    model, batches = network(), data()
    ones = masks_of(model, 2.0)
    settings = dict(sparsity=0.6, rounds=rounds, block=6, damping=DAMPING, relative=False)
    ticket = pxframe.prune(model, batches, "cap", **settings)
    found = gradients(model, ones, batches, 1)
    for name, rows in found.items():
        weights, mask = model.get_parameter(name).detach().flatten(), ticket.masks[name].flatten()
        start = ticket.start[name].flatten()
        assert start.dtype == weights.dtype
        for block in blocks(len(weights), 6):
            gone = [at for at, i in enumerate(block) if not mask[i]]
            near(start[block], quadratic(matrix(rows[:, block]), weights[block], gone)[0])
    plain = pxframe.prune(model, batches, "cap", **settings, update=False)
    assert not plain.start
    assert all(torch.equal(plain.masks[n], mask) for n, mask in ticket.masks.items())


def test_many_passes_over_the_data_give_the_same(monkeypatch):
    model, batches = network(), data()
    expected = pxframe.score(model, batches, "cap", block=4, damping=DAMPING)
    monkeypatch.setattr(cap, "_ENTRIES", 5 * 16)
    monkeypatch.setattr(cap, "_AT_ONCE", 2 * 16)
    found = pxframe.score(model, batches, "cap", block=4, damping=DAMPING)
    for name, scores in expected.items():
        near(found[name], scores, 1e-12)


def test_what_is_held_is_neither_ranked_nor_changed():
    from pxframe.network.net import Net
    from pxframe.plugin.registry import build

    model, batches = network(), data()
    net = Net(model, masks_of(model, 2.0))
    held = torch.zeros(3, 3, dtype=torch.bool)
    held[1] = True
    net.held = {"5.weight": held}
    scorer = build("scorer", dict(type="cap", block=9, damping=DAMPING, relative=False))
    scores = scorer.score(net, batches)["5.weight"]
    left = (~held).flatten().nonzero().flatten()
    rows = gradients(model, net.masks, batches, 1)["5.weight"][:, left]
    near(scores.flatten()[left], surgeon(matrix(rows), model[5].weight.detach().flatten()[left]))
    net.masks = {**net.masks, "5.weight": held | (torch.arange(9).view(3, 3) == 0)}
    assert torch.equal(scorer.restart(net)["5.weight"][1], model[5].weight[1])


def test_the_unit_of_the_loss_does_not_choose():
    """Gradients a million times smaller: an absolute lambda would outweigh them, and choose by magnitude."""
    model, batches = network(), data()
    plain, small = (
        pxframe.score(model, batches, "cap", block=6, loss=lambda y, t, unit=unit: unit * F.cross_entropy(y, t))
        for unit in (1.0, 1e-6)
    )
    for name, scores in plain.items():
        torch.testing.assert_close(small[name], 1e-12 * scores, rtol=1e-6, atol=0)


def test_without_gradients_the_smallest_go_first_at_no_cost():
    model = nn.Linear(4, 3).double()
    scores = pxframe.score(model, [(torch.zeros(2, 4).double(), torch.arange(2))], "cap", block=12)["weight"]
    assert scores.max() < 1e-90
    assert torch.equal(scores.flatten().argsort(), model.weight.detach().abs().flatten().argsort())


def test_the_model_stays_and_float32_gives_nearly_the_same():
    model, batches = network(), data()
    before = {n: t.clone() for n, t in model.state_dict().items()}
    expected = pxframe.score(model, batches, "cap", damping=DAMPING)
    pxframe.prune(model, batches, "cap", sparsity=0.5)
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    found = pxframe.score(model.float(), [(x.float(), y) for x, y in batches], "cap", damping=DAMPING)
    for name, scores in expected.items():
        assert found[name].dtype == torch.float64
        torch.testing.assert_close(found[name], scores, rtol=1e-2, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"block": 0}, "'block' must be a whole number"),
        ({"damping": 0}, "'damping' must be a finite number above 0"),
        ({"gradients": "batches"}, "'gradients' must be 'samples', or a whole number of at least 1"),
        ({"gradients": True}, "'gradients' must be 'samples', or a whole number of at least 1"),
        ({"update": 1}, "'update' must be True or False"),
        ({"relative": 0.1}, "'relative' must be True or False"),
    ],
)
def test_mistakes_cost_one_line(options, words):
    with pytest.raises(pxframe.PxframeError, match=f"cap: {words}"):
        pxframe.score(network(), data(), "cap", **options)


def test_gradients_that_are_not_finite_are_told_of():
    model = nn.Linear(4, 3)
    with pytest.raises(pxframe.PxframeError, match="gradients by weight are not finite"):
        pxframe.score(model, [(torch.full((2, 4), torch.inf), torch.arange(2))], "cap")
