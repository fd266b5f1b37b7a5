"""Tickets of channels that leave a given share of the FLOPs, the parameters or the time."""

import logging

import pytest
import torch
from torch import nn

import pxframe
from pxframe.speed import shares

X = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
DATA = [(X, torch.tensor([0, 1, 2, 3]))]
GROUPED = {"type": "channel", "groups": "mean"}


@pytest.fixture
def model():
    torch.manual_seed(0)
    return pxframe.build_backbone(dict(type="cifar_resnet", depth=8, width=32)).eval()


def pruned(model, scorer="random", **options):
    return pxframe.prune(model, DATA, scorer, **{"granularity": GROUPED, "exclude": "linear.*", **options})


def parameters(model):
    return sum(p.numel() for p in model.parameters())


def multiplications(model):
    """Counted layer by layer from what reaches each, and not by the library."""
    found = []

    def count(layer, inputs, output):
        positions = output[0, 0].numel() if output.ndim == 4 else 1
        found.append(layer.weight.numel() * positions)

    hooks = [m.register_forward_hook(count) for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    with torch.no_grad():
        model(X[:1])
    for hook in hooks:
        hook.remove()
    return sum(found)


@pytest.mark.parametrize(("kind", "count"), [("flops", multiplications), ("params", parameters)])
@pytest.mark.parametrize("share", [0.7, 0.3])
def test_the_slim_network_has_the_share_that_was_asked_for(model, kind, count, share):
    ticket = pruned(model, **{kind: share})
    small = pxframe.slim(model, ticket, X).model
    left = count(small) / count(model)
    assert left == pytest.approx(share, rel=0.02)
    assert ticket.meta["reached"] == pytest.approx(left)
    assert ticket.meta["target"] == {kind: share}
    assert 0 < ticket.meta["sparsity_asked"] < 1


def test_a_method_of_several_rounds_reaches_its_target(model):
    ticket = pruned(model, "synflow", rounds=3, params=0.5)
    assert parameters(pxframe.slim(model, ticket, X).model) / parameters(model) == pytest.approx(0.5, rel=0.02)
    assert ticket.meta["rounds"] == 3


def test_the_time_is_measured_against_the_dense_network(model, monkeypatch):
    seen = []

    def take_times(networks, example, rounds):
        seen.append((set(networks), len(example)))
        return {name: (parameters(network) * 1e-6, 5.0, 9.0) for name, network in networks.items()}

    monkeypatch.setattr(shares, "take_times", take_times)
    ticket = pruned(model, latency=0.4)
    assert parameters(pxframe.slim(model, ticket, X).model) / parameters(model) == pytest.approx(0.4, rel=0.02)
    assert seen
    assert all(found == ({"dense", "slim"}, 1) for found in seen)


def test_times_of_this_machine_are_taken(model):
    small = pxframe.slim(model, pruned(model, sparsity=0.9), X).model
    with torch.no_grad():
        assert shares.share_left("latency", model, small, X[:1]) > 0


class Counted(pxframe.Scorer):
    name, needs, rounds = "counted", "inputs", 1
    calls = 0

    def score(self, net, batches):
        type(self).calls += 1
        return {name: weight.abs() for name, weight in net.weights.items()}


def test_a_method_that_scores_once_is_scored_once(model):
    Counted.calls = 0
    pruned(model, Counted(), params=0.5)
    assert Counted.calls == 1


def test_batches_may_be_a_generator_and_the_model_stays_as_it_was(model):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.train()
    state = torch.random.get_rng_state()
    settings = {"granularity": GROUPED, "exclude": "linear.*"}
    one = pxframe.prune(model, (pair for pair in DATA), "snip", flops=0.5, **settings)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    other = pxframe.prune(model, DATA, "snip", flops=0.5, **settings)
    assert all(torch.equal(one.masks[name], other.masks[name]) for name in one.masks)


def test_a_refit_is_made_of_the_ticket_that_was_found(model):
    plain, refitted = pruned(model, flops=0.5), pruned(model, flops=0.5, refit="bn")
    assert all(torch.equal(plain.masks[name], refitted.masks[name]) for name in plain.masks)
    assert refitted.start
    assert not plain.start


def test_the_nearest_is_told_where_channels_are_too_few(caplog):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 3, 3), nn.ReLU(), nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 144, 2)).eval()
    with caplog.at_level(logging.WARNING):
        ticket = pruned(model, granularity="channel", exclude=["2.*", "4.*"], flops=0.8)
    first, second = 3 * 27 * 14 * 14, 3 * 36 * 12 * 12
    shares = [(first + second) * left / 3 + 4 * 144 * 2 for left in (1, 2)]
    dense = first + second + 4 * 144 * 2
    assert ticket.meta["reached"] == pytest.approx(min((s / dense for s in shares), key=lambda s: abs(s - 0.8)))
    assert "flops=0.8: the nearest found" in caplog.text


def test_what_cannot_be_reached_is_refused_or_told(model, caplog):
    with pytest.raises(pxframe.PxframeError, match=r"params=0.001: the smallest network found .* ask for more"):
        pruned(model, params=0.001)
    with caplog.at_level(logging.WARNING):
        ticket = pruned(model, params=0.001, allow_collapse=True)
    assert "params=0.001: the smallest network found" in caplog.text
    assert "collapsed" not in ticket.meta


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"flops": 50}, "flops must be one number in .0, 1., got 50; did you mean 0.5"),
        ({"params": True}, "params must be one number"),
        ({"latency": 1.0}, "latency must be one number"),
        ({"flops": [0.5, 0.3]}, "flops must be one number"),
        ({"flops": 0.5, "sparsity": 0.5}, "sparsity and flops both say how much is removed"),
        ({"flops": 0.5, "granularity": "weight"}, "flops is a target for granularity 'channel'"),
        ({"flops": 0.5, "scorer": "imp", "train": lambda *a, **k: None}, "'imp' trains the network for each sparsity"),
    ],
)
def test_bad_targets_cost_one_line(model, settings, message):
    with pytest.raises(pxframe.PxframeError, match=message):
        pruned(model, **settings)


def test_a_target_needs_an_input(model):
    with pytest.raises(pxframe.PxframeError, match="flops is counted on an input: pass batches"):
        pxframe.prune(model, None, "random", granularity=GROUPED, exclude="linear.*", flops=0.5)
