"""Every consumer of a seed draws from a stream of its own: what one draws says nothing about what another does."""

import numpy as np
import pytest
import torch
from torch import nn

import pxframe
from pxframe.running.undisturbed import derived_seed, seeded, stream

CPU = torch.device("cpu")
CONSUMERS = ["seeded", "pruning", "reinit"]


def correlation(a, b):
    return float(torch.corrcoef(torch.stack([a.flatten().double(), b.flatten().double()]))[0, 1])


def uncorrelated(a, b):
    """Within 5 sigma of zero: the correlation of n independent pairs has a deviation of 1 / sqrt(n)."""
    return abs(correlation(a, b)) < 5 / a.numel() ** 0.5


def linear():
    return nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10))


def convolutional():
    return nn.Sequential(nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.Flatten(), nn.Linear(256, 10))


def drawn(build, seed, how):
    """A network with torch's own initialisation, drawn by ``seed`` the plain way or inside ``seeded``."""
    if how == "seeded":
        with seeded(seed, CPU):
            return build()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


def test_the_test_would_see_a_shared_stream():
    torch.manual_seed(3)
    weight = nn.Linear(64, 64).weight.detach()
    assert not uncorrelated(weight, torch.rand(64, 64, generator=torch.Generator().manual_seed(3)) > 0.5)


@pytest.mark.parametrize("seed", [0, 7])
@pytest.mark.parametrize("how", ["manual_seed", "seeded"])
@pytest.mark.parametrize("build", [linear, convolutional])
def test_a_random_ticket_says_nothing_about_weights_of_the_same_seed(build, how, seed):
    model = drawn(build, seed, how)
    ticket = pxframe.prune(model, None, scorer="random", sparsity=0.5, seed=seed)
    for name, mask in ticket.masks.items():
        assert uncorrelated(model.get_parameter(name).detach(), mask), name
    scores = pxframe.score(model, None, scorer="random", seed=seed)
    for name, score in scores.items():
        assert uncorrelated(model.get_parameter(name).detach(), score), name


@pytest.mark.parametrize("seed", [0, 7])
def test_weights_drawn_anew_say_nothing_about_the_old_ones_of_the_same_seed(seed):
    """Kaiming's normal draws are what ``reinit`` draws too: from one stream they would be proportional."""
    model = convolutional()
    torch.manual_seed(seed)  # right before the draws, so that both streams would begin at the same place
    for layer in (model[0], model[2]):
        nn.init.kaiming_normal_(layer.weight)
    batches = [(torch.randn(2, 3, 6, 6), None)]
    ticket = pxframe.prune(
        model,
        batches,
        scorer="magnitude",
        sparsity=0.0,
        granularity="channel",
        refit="reinit",
        exclude="4.*",
        seed=seed,
    )
    first, second = (model.get_parameter(n).detach() for n in ("0.weight", "2.weight"))
    assert uncorrelated(first, ticket.start["0.weight"])
    assert uncorrelated(second, ticket.start["2.weight"])


class Noted(pxframe.Scorer):
    """Notes what its generator and torch's own give."""

    name, needs = "noted", "nothing"

    def score(self, net, batches):
        self.noted = [torch.randn(4096, generator=net.generator), torch.randn(4096)]
        return {n: w.abs() for n, w in net.weights.items()}


@pytest.mark.parametrize("seed", [0, 7])
def test_what_a_scorer_draws_is_independent_of_the_caller_s_seed_and_repeats(seed):
    model, seen = nn.Linear(4, 4), []
    for _ in range(2):
        scorer = Noted()
        pxframe.prune(model, None, scorer=scorer, sparsity=0.5, seed=seed)
        seen.append(scorer.noted)
    callers = torch.randn(4096, generator=torch.Generator().manual_seed(seed))
    own, global_ = seen[0]
    assert uncorrelated(own, global_)
    assert uncorrelated(own, callers)
    assert uncorrelated(global_, callers)
    assert all(torch.equal(a, b) for a, b in zip(*seen, strict=True))


def test_streams_differ_by_consumer_and_seed_and_repeat():
    seeds = [derived_seed(seed, consumer) for seed in range(50) for consumer in CONSUMERS]
    assert len(set(seeds)) == len(seeds)
    assert not set(seeds) & set(range(50))
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert torch.equal(torch.rand(5, generator=stream(3, "a")), torch.rand(5, generator=stream(3, "a")))
    assert not torch.equal(torch.rand(5, generator=stream(3, "a")), torch.rand(5, generator=stream(3, "b")))


@pytest.mark.parametrize("seed", [-1, 2**63 - 1, 2**32])
def test_any_seed_that_torch_takes_has_streams(seed):
    with seeded(seed, CPU) as generator:
        torch.rand(2, generator=generator), np.random.rand()
