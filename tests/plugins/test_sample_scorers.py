"""Scorers of squared gradients of single samples, against loops and exact Jacobians."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, jacrev

import pxframe
from pxframe.passes import samples


def small():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2),
        nn.BatchNorm2d(4),
        nn.Tanh(),
        nn.Conv2d(4, 4, 2, groups=2),
        nn.Flatten(),
        nn.Linear(4, 3),
    )
    nn.init.uniform_(model[1].running_var, 0.5, 2.0)
    return model.double()


def data(sizes=(4, 3)):
    torch.manual_seed(1)
    return [(torch.randn(n, 2, 6, 6, dtype=torch.float64), torch.arange(n) % 3) for n in sizes]


def masks_of(model, share=0.7):
    torch.manual_seed(2)
    return {n: torch.rand(p.shape) < share for n, p in model.named_parameters() if p.ndim > 1}


def masked(model, masks):
    return {n: p.detach() * masks[n] if n in masks else p.detach() for n, p in model.named_parameters()}


def jacobians(model, masks, x):
    """df/d(theta m), ``[N, K, *shape]`` by name."""
    values = masked(model, masks)

    def outputs(weights):
        return functional_call(model, {**values, **dict(model.named_buffers()), **weights}, (x,)).flatten(1)

    model.eval()
    return jacrev(outputs)({n: values[n] for n in masks})


def equal(found, expected, **tolerance):
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, **{"rtol": 1e-9, "atol": 1e-15, **tolerance})


def test_fisher_is_a_loop_over_samples():
    model, batches = small(), data()
    masks = masks_of(model)
    values = {n: w.requires_grad_() for n, w in masked(model, masks).items()}
    expected = {n: 0.0 for n in masks}
    model.eval()
    for x, y in batches:
        for n in range(len(x)):
            loss = F.cross_entropy(functional_call(model, values, (x[n : n + 1],)), y[n : n + 1])
            for name, g in zip(masks, torch.autograd.grad(loss, [values[n] for n in masks]), strict=True):
                expected[name] = expected[name] + 0.5 * model.get_parameter(name).detach() ** 2 * g**2 / 7
    equal(pxframe.score(model.train(), batches, "fisher", masks=masks), expected)


def test_sampled_labels_give_the_fisher_information_on_average():
    """Which is J^T (diag p - p p^T) J, in closed form; many copies of one sample are many draws."""
    model, (x, _) = small(), data((1,))[0]
    masks = masks_of(model)
    jacobian = jacobians(model, masks, x)
    p = functional_call(model, masked(model, masks), (x,)).softmax(1)[0].detach()
    draws = 2000
    scores = pxframe.score(model, [(x.expand(draws, -1, -1, -1), None)], "fisher", labels="sampled", masks=masks)
    for name, j in jacobian.items():
        j = j[0].detach()
        squares = (
            torch.stack([torch.einsum("k,k...->...", F.one_hot(torch.tensor(c), 3) - p, j) for c in range(3)]) ** 2
        )
        weight = 0.5 * model.get_parameter(name).detach() ** 2
        expected = torch.einsum("c,c...->...", p, squares)
        spread = (torch.einsum("c,c...->...", p, squares**2) - expected**2).clamp(min=0).sqrt()
        assert ((scores[name] - weight * expected).abs() <= weight * (5 * spread / math.sqrt(draws)) + 1e-12).all()


def test_sampled_labels_are_seeded_and_read_no_target():
    model, batches = small(), data()
    a, b, c = (
        pxframe.score(model, [(x, t if keep else None) for x, t in batches], "fisher", labels="sampled", seed=seed)
        for seed, keep in ((0, True), (0, False), (1, False))
    )
    equal(a, b, rtol=0, atol=0)
    assert any(not torch.equal(a[n], c[n]) for n in a)


def test_sampled_labels_of_a_map():
    model = nn.Sequential(nn.Conv2d(2, 3, 3)).double()
    scores = pxframe.score(model, data(), "fisher", labels="sampled")
    assert scores["0.weight"].min() > 0


class Dicts(nn.Linear):
    def forward(self, x):
        return {"out": super().forward(x.flatten(1))}


def test_mistakes_cost_one_line():
    with pytest.raises(pxframe.PxframeError, match="fisher: 'labels' must be one of 'true', 'sampled'; got 'drawn'"):
        pxframe.score(small(), data(), "fisher", labels="drawn")
    with pytest.raises(pxframe.PxframeError, match="needs labels"):
        pxframe.score(small(), None, "fisher")
    with pytest.raises(pxframe.PxframeError, match=r"class scores \[samples, classes, ...\], not a dict; take labels"):
        pxframe.score(Dicts(72, 3).double(), data(), "fisher", labels="sampled")
    with pytest.raises(pxframe.PxframeError, match="'probes' must be a whole number of at least 1, got 0"):
        pxframe.score(small(), data(), "ntk_trace", probes=0)
    with pytest.raises(pxframe.PxframeError, match="the model has no floating-point output"):
        pxframe.score(nn.Sequential(nn.Flatten(), Whole(72, 3)).double(), data(), "ntk_trace")


class Whole(nn.Linear):
    def forward(self, x):
        return super().forward(x).argmax(1)


def exact(model, batches, masks):
    total = {n: 0.0 for n in masks}
    for x, _ in batches:
        for name, j in jacobians(model, masks, x).items():
            total[name] = total[name] + model.get_parameter(name).detach() ** 2 * j.detach().square().sum((0, 1))
    return total


@pytest.mark.parametrize("probes", [3, 16])
def test_ntk_trace_is_of_the_exact_jacobian(probes):
    model, batches = small(), data()
    masks = masks_of(model)
    found = pxframe.score(model.train(), [(x, None) for x, _ in batches], "ntk_trace", masks=masks, probes=probes)
    equal(found, exact(model, batches, masks))


class Seen(nn.Module):
    """Counts its forward passes; ``asking``: no two samples can go through it together."""

    def __init__(self, inner, asking):
        super().__init__()
        self.inner, self.asking = inner, asking

    def forward(self, x):
        SEEN.append(len(x))
        return self.inner(x) if not self.asking or float(x.detach().sum()) < 1e9 else -x


SEEN = []


@pytest.mark.parametrize("probes", [16, 2])
def test_one_forward_pass_serves_all_outputs(probes, monkeypatch):
    """As many as fit into memory; what is drawn does not depend on that."""
    model, batches = Seen(small(), asking=False), data()
    number, passes, found = min(probes, 3), [], []
    weights = sum(p.numel() for p in model.parameters() if p.ndim > 1)
    for entries in (samples._ENTRIES, samples._CHUNK * weights):
        monkeypatch.setattr(samples, "_ENTRIES", entries)
        SEEN.clear()
        found.append(pxframe.score(model, batches, "ntk_trace", probes=probes))
        passes.append(len(SEEN))
    equal(*found)
    # A batch each for the number of outputs, the passes of both batches, and a sample alone to compare with, by row.
    assert passes == [2 + 2 + number, 2 + 2 * number + 1]
    if number == 3:
        equal(found[0], {f"inner.{n}": s for n, s in exact(small(), batches, masks_of(small(), 2.0)).items()})


def test_samples_that_cannot_be_taken_together_are_taken_alone():
    model, batches = Seen(small(), asking=True), data()
    found = pxframe.score(model, batches, "ntk_trace")
    equal(found, {f"inner.{n}": s for n, s in exact(small(), batches, masks_of(small(), 2.0)).items()})


def test_probes_give_it_on_average():
    model, (x, _) = small(), data((1,))[0]
    masks, draws = masks_of(model), 1000
    expected = exact(model, [(x, None)], masks)
    found = pxframe.score(model, [(x.expand(draws, -1, -1, -1), None)], "ntk_trace", masks=masks, probes=2)
    seeds = (0, 0, 1, 2, 3)
    seeded = [pxframe.score(model, [(x, None)], "ntk_trace", masks=masks, probes=1, seed=seed) for seed in seeds]
    equal(*seeded[:2], rtol=0, atol=0)
    for name, trace in expected.items():
        # A squared sum of independent signs deviates from its mean by sqrt(2) of it at most.
        bound = 5 * math.sqrt(2) * trace / math.sqrt(2 * draws)
        assert ((found[name] / draws - trace).abs() <= bound + 1e-15).all()
    assert any(not torch.equal(scores["0.weight"], seeded[0]["0.weight"]) for scores in seeded[2:])
    assert not any(torch.allclose(scores["0.weight"], expected["0.weight"]) for scores in seeded)


def test_ntk_trace_counts_every_floating_output():
    class Several(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            y = self.inner(x)
            return {"y": y, "more": [2 * y, y.argmax(1)]}

    model, batches = small(), data()
    one = pxframe.score(model, batches, "ntk_trace")
    several = pxframe.score(Several(model), batches, "ntk_trace")
    equal(several, {f"inner.{n}": 5 * s for n, s in one.items()})


@pytest.mark.parametrize("scorer", ["fisher", "ntk_trace"])
def test_squares_of_half_precision_do_not_vanish(scorer):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 256), nn.GELU(), nn.Linear(256, 100)).half()
    x, y = torch.randn(8, 64).half(), torch.arange(8)
    if scorer == "ntk_trace":
        with torch.no_grad():
            model[4].weight.mul_(1e-3)
    found = pxframe.score(model, [(x, y)], scorer)
    exact = pxframe.score(model.float(), [(x.float(), y)], scorer)
    for name, score in found.items():
        assert score.isfinite().all()
        assert ((score == 0) & (exact[name] > 0)).float().mean() < 0.05, name
