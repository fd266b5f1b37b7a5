"""Weights, channels and N:M patterns with any scorer."""

import pytest
import torch
from torch import nn

import pxframe
from pxframe.network.net import Net
from pxframe.refits.fan_in import fan_in

NET = dict(rounds=6, sparsity=0.5)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 4)
    )


@pytest.fixture
def batches():
    torch.manual_seed(1)
    return [(torch.randn(6, 3, 6, 6), torch.arange(6) % 4)]


@pytest.mark.parametrize("scorer", ["random", "magnitude", "snip", "px", "synflow"])
def test_channels_are_kept_whole_and_counted_exactly(model, batches, scorer):
    ticket = pxframe.prune(
        model,
        batches,
        scorer=scorer,
        granularity="channel",
        sparsity=0.6,
        rounds=4,
        scope="layer",
        exclude=["6.*"],
    )
    kept = 0
    for mask in ticket.masks.values():
        rows = mask.flatten(1)
        assert (rows.all(1) == rows.any(1)).all()
        kept += int(rows.any(1).sum())
    assert kept == round(0.4 * 24)
    assert ticket.meta["granularity"] == {"type": "channel", "compute_aware": False}


def test_a_channel_s_score_is_the_sum_of_its_weights(model):
    ticket = pxframe.prune(model, None, scorer="magnitude", granularity="channel", sparsity=0.5, exclude=["6.*"])
    sums = torch.cat([model[i].weight.detach().abs().sum((1, 2, 3)) for i in (0, 3)])
    kept = torch.cat([ticket.masks[f"{i}.weight"].flatten(1).any(1) for i in (0, 3)])
    assert set(kept.nonzero().flatten().tolist()) == set(sums.topk(12).indices.tolist())


def test_compute_aware_divides_by_what_a_channel_costs(model, batches):
    """By hand: a channel of the first layer makes a 4x4 map from 3 channels, of the second a 2x2 map from 8."""
    granularity = dict(type="channel", compute_aware=True)
    ticket = pxframe.prune(model, batches, scorer="magnitude", granularity=granularity, sparsity=0.2, exclude=["6.*"])
    costs = {0: 4 * 4 * 27, 3: 2 * 2 * 72}
    scores = torch.cat([model[i].weight.detach().abs().sum((1, 2, 3)) / cost for i, cost in costs.items()])
    kept = torch.cat([ticket.masks[f"{i}.weight"].flatten(1).any(1) for i in costs])
    assert set(kept.nonzero().flatten().tolist()) == set(scores.topk(19).indices.tolist())
    assert not ticket.masks["0.weight"].all()


@pytest.mark.parametrize("pattern", ["2:4", "1:4", "1:2"])
@pytest.mark.parametrize("scorer", ["random", "magnitude", "snip", "px"])
def test_patterns_keep_n_of_every_m_inputs(model, batches, scorer, pattern):
    n, m = map(int, pattern.split(":"))
    ticket = pxframe.prune(model, batches, scorer=scorer, granularity=pattern, rounds=5)
    assert set(ticket.masks) == {"3.weight", "6.weight"}  # the first layer has 3 inputs
    for mask in ticket.masks.values():
        groups = mask.movedim(1, -1).reshape(-1, m)
        assert (groups.sum(1) == n).all()
    assert ticket.kept * m == ticket.total * n
    assert ticket.meta["granularity"] == {"type": pattern}


def test_a_pattern_keeps_the_highest_of_each_group(model):
    ticket = pxframe.prune(model, None, scorer="magnitude", granularity="2:4")
    for name, mask in ticket.masks.items():
        size = model.get_parameter(name).detach().abs().movedim(1, -1).reshape(-1, 4)
        kept = mask.movedim(1, -1).reshape(-1, 4)
        assert torch.equal(size.sort(1).values[:, 2:], size[kept].view(-1, 2).sort(1).values)


def test_a_pattern_passes_exact_counts_on_its_way(model, batches):
    from pxframe.plugin import host

    class Watch:
        counts = []

        @pxframe.hookimpl
        def pxframe_round_done(self, density, masks):
            self.counts.append((sum(int(m.sum()) for m in masks.values()), density))
            assert all((m.movedim(1, -1).reshape(-1, 4).sum(1) >= 2).all() for m in masks.values())

    watch = Watch()
    host.host().manager.register(watch)
    try:
        pxframe.prune(model, batches, granularity="2:4", rounds=7)
    finally:
        host.host().manager.unregister(watch)
    total = 16 * 8 * 9 + 64 * 4
    assert [count for count, _ in watch.counts] == [round(density * total) for _, density in watch.counts]
    assert watch.counts[0][0] > watch.counts[-1][0] == total // 2


def test_fan_in_counts_what_paths_go_through(model, batches):
    """By hand: channel 0 of the first layer is gone, and with it every weight that reads it."""
    masks = {n: torch.ones_like(p, dtype=torch.bool) for n, p in model.named_parameters() if p.ndim > 1}
    masks["0.weight"][0] = False
    masks["3.weight"][5] = False
    masks["3.weight"][2, 3] = False
    found = fan_in(Net(model, masks), batches[0][0])
    assert found["0.weight"].tolist() == [0] + [27] * 7
    assert found["3.weight"].tolist() == [9 * (0 if o == 5 else 6 if o == 2 else 7) for o in range(16)]
    assert found["6.weight"].tolist() == [64 - 4] * 4


def test_rescale_and_reinit_fit_the_inputs_that_are_left(model, batches):
    options = dict(scorer="magnitude", granularity="channel", refit="rescale", exclude=["6.*"], scope="layer")
    ticket = pxframe.prune(model, batches, sparsity=0.5, **options)
    left = int(ticket.masks["0.weight"].flatten(1).any(1).sum())
    rows = ticket.masks["3.weight"].flatten(1).any(1)
    assert 0 < left < 8
    assert rows.any()
    expected = model[3].weight.detach()[rows] * (8 / left) ** 0.5
    assert torch.allclose(ticket.start["3.weight"][rows], expected)
    assert torch.equal(ticket.start["0.weight"], model[0].weight.detach())

    wide = nn.Sequential(nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.Flatten(), nn.Linear(256, 4))
    options["refit"] = "reinit"
    options["exclude"] = ["4.*"]
    ticket = pxframe.prune(wide, [(torch.randn(1, 3, 6, 6), None)], sparsity=0.5, **options)
    left = int(ticket.masks["0.weight"].flatten(1).any(1).sum())
    drawn = ticket.start["2.weight"][ticket.masks["2.weight"].flatten(1).any(1)]
    assert drawn.std() == pytest.approx((2 / (9 * left)) ** 0.5, rel=0.05)
    before = wide[2].weight.detach().clone()
    ticket.rewind(wide)
    assert torch.equal(wide[2].weight, ticket.start["2.weight"] * ticket.masks["2.weight"])
    assert not torch.equal(wide[2].weight, before)


def test_rescale_leaves_a_layer_alone_that_lost_nothing():
    """On 1x1 maps most of a padded kernel reads nothing, pruned or not."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4, 2))
    options = dict(sparsity=0.0, rounds=1, granularity="channel", refit="rescale")
    ticket = pxframe.prune(model, [(torch.randn(2, 3, 1, 1), None)], **options)
    assert all(torch.equal(ticket.start[n], model.get_parameter(n)) for n in ticket.masks)


@pytest.mark.parametrize("granularity", ["channel", "2:4"])
@pytest.mark.parametrize("kind", ["transposed", "x @ weight"])
def test_weights_with_their_inputs_first_are_refused(granularity, kind):
    class Projected(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(4, 8, 3, padding=1)
            self.up = nn.ConvTranspose2d(8, 4, 2) if kind == "transposed" else None
            self.proj = nn.Parameter(torch.randn(8, 8)) if kind != "transposed" else None

        def forward(self, x):
            x = self.conv(x)
            return self.up(x).mean((2, 3)) if self.up else x.mean((2, 3)) @ self.proj

    batches = [(torch.randn(2, 4, 6, 6), None)]
    name = "up.weight" if kind == "transposed" else "proj"
    with pytest.raises(pxframe.PxframeError, match=f"{name} has its inputs, not its outputs, in the first dimension"):
        pxframe.prune(Projected(), batches, scorer="magnitude", granularity=granularity)
    ticket = pxframe.prune(
        Projected(), batches, scorer="magnitude", granularity=granularity, sparsity=0.5, exclude=name
    )
    assert set(ticket.masks) == {"conv.weight"}


@pytest.mark.parametrize("granularity", ["channel", "2:4"])
@pytest.mark.parametrize("kind", [nn.ConvTranspose1d, nn.ConvTranspose2d])
def test_a_transposed_convolution_is_refused_without_data_too(granularity, kind):
    model = nn.Sequential(nn.Conv2d(4, 8, 3), nn.Sequential(kind(8, 4, 2)))
    with pytest.raises(pxframe.PxframeError, match=r"1\.0\.weight has its inputs, not its outputs"):
        pxframe.prune(model, None, scorer="magnitude", granularity=granularity)
    ticket = pxframe.prune(model, None, scorer="magnitude", granularity=granularity, sparsity=0.5, exclude="1.*")
    assert set(ticket.masks) == {"0.weight"}
    assert set(pxframe.prune(model, None, scorer="magnitude", sparsity=0.5).masks) == {"0.weight", "1.0.weight"}


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (dict(granularity="chanel"), "did you mean 'channel'"),
        (dict(granularity="4:2"), "N of every M are kept, with 0 < N < M"),
        (dict(granularity="2:5"), "no layer's inputs are a multiple of 5"),
        (dict(granularity="2:4", sparsity=0.9), "a sparsity of its own, 0.5"),
        (dict(granularity="2:4", scope="layer", distribution="erk"), "same share of every layer"),
        (dict(granularity=dict(type="channel", refit="bn")), "takes no option 'refit'"),
        (dict(granularity=dict(type="channel", cost=True)), "takes no option 'cost'"),
        (dict(granularity=dict(type="channel", compute_aware=True)), "needs one batch"),
    ],
)
def test_bad_arguments(model, arguments, text):
    with pytest.raises(pxframe.PxframeError, match=text):
        pxframe.prune(model, None, scorer="magnitude", **arguments)
