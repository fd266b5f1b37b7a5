"""The fan-in that is left: by hand, against a search through a graph of units, and exact at any depth."""

import itertools

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torchvision.ops import DeformConv2d

import pxframe
from pxframe.network.net import Net
from pxframe.refits.fan_in import fan_in, reinit


def net_of(model, masks=None):
    every = {n: torch.ones_like(p, dtype=torch.bool) for n, p in model.named_parameters() if p.ndim > 1}
    return Net(model, {**every, **(masks or {})})


class Beside(nn.Module):
    """A skip concatenated with ``depth`` convolutions, then a 1x1 convolution that reads both."""

    def __init__(self, depth):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.branch = nn.Sequential(
            *itertools.chain.from_iterable((nn.Conv2d(16, 16, 3, padding=1), nn.ReLU()) for _ in range(depth))
        )
        self.join, self.fc = nn.Conv2d(32, 4, 1), nn.Linear(4, 2)

    def forward(self, x):
        x = self.stem(x)
        return self.fc(torch.relu(self.join(torch.cat([x, self.branch(x)], 1))).mean((2, 3)))


@pytest.mark.parametrize("depth", [1, 4, 12])
def test_a_skip_beside_a_deep_branch_counts_in_full(depth):
    found = fan_in(net_of(Beside(depth)), torch.randn(1, 3, 8, 8))
    assert found["join.weight"].tolist() == [32] * 4
    assert found["stem.weight"].tolist() == [27] * 16
    assert all(found[f"branch.{2 * i}.weight"].tolist() == [144] * 16 for i in range(depth))


def test_every_layer_of_a_dense_densenet_has_its_whole_fan_in():
    model = torchvision.models.DenseNet(8, (6, 6, 6), 16)
    found = fan_in(net_of(model), torch.randn(1, 3, 64, 64))
    for name, count in found.items():
        weight = model.get_parameter(name)
        assert count.tolist() == [weight[0].numel()] * len(weight), name


class Joined(nn.Module):
    """Two linear layers, a skip around them, and a last layer on both."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(3, 4), nn.Linear(4, 3), nn.Linear(6, 2)

    def forward(self, x):
        return self.c(torch.cat([x, torch.relu(self.b(torch.relu(self.a(x))))], 1))

    @staticmethod
    def edges(masks):
        """(layer, output channel, source unit, target unit) of every weight that is kept."""
        sources = {"a": "x", "b": "a"}
        for layer in "abc":
            for o, i in masks[f"{layer}.weight"].nonzero().tolist():
                source = (sources[layer], i) if layer != "c" else (("x", i) if i < 3 else ("b", i - 3))
                yield layer, o, source, (layer, o)

    starts, ends = [("x", i) for i in range(3)], [("c", 0), ("c", 1)]
    shape = (1, 3)


class Strided(nn.Module):
    """Convolutions along one axis, with a stride, padding and a kernel as long as its map."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv1d(2, 3, 3, padding=1), nn.Conv1d(3, 2, 2, stride=2), nn.Conv1d(2, 2, 3)

    def forward(self, x):
        return self.c(torch.relu(self.b(torch.relu(self.a(x)))))

    @staticmethod
    def edges(masks):
        sizes, sources = {"x": 6, "a": 6, "b": 3, "c": 1}, {"a": "x", "b": "a", "c": "b"}
        for layer, stride, padding in (("a", 1, 1), ("b", 2, 0), ("c", 1, 0)):
            for o, i, k in masks[f"{layer}.weight"].nonzero().tolist():
                for at in range(sizes[layer]):
                    read = at * stride - padding + k
                    if 0 <= read < sizes[sources[layer]]:
                        yield (layer, i, k), o, (sources[layer], i, read), (layer, o, at)

    starts, ends = [("x", i, at) for i in range(2) for at in range(6)], [("c", 0, 0), ("c", 1, 0)]
    shape = (1, 2, 6)


def searched(model, masks):
    """By layer and output channel, the number of weights on a path, by search from both ends."""
    edges = list(model.edges(masks))

    def closure(units, pairs):
        reached, size = set(units), -1
        while len(reached) > size:
            size = len(reached)
            reached |= {b for a, b in pairs if a in reached}
        return reached

    forwards = closure(model.starts, [(s, t) for _, _, s, t in edges])
    backwards = closure(model.ends, [(t, s) for _, _, s, t in edges])
    used = {(w[0], w[1:] or s, o) for w, o, s, t in edges if s in forwards and t in backwards}
    return {
        f"{layer}.weight": [
            sum(u[0] == layer and u[2] == o for u in used) for o in range(len(masks[f"{layer}.weight"]))
        ]
        for layer in "abc"
    }


@pytest.mark.parametrize("kind", [Joined, Strided])
@pytest.mark.parametrize("density", [0.2, 0.4, 0.7, 1.0])
def test_against_a_search_through_all_units(kind, density):
    generator = torch.Generator().manual_seed(0)
    model = kind()
    for _ in range(12):
        net = net_of(
            model,
            {n: torch.rand(p.shape, generator=generator) < density for n, p in model.named_parameters() if p.ndim > 1},
        )
        found = fan_in(net, torch.randn(model.shape))
        assert {n: c.tolist() for n, c in found.items()} == searched(model, net.masks)


class Attention(nn.Module):
    """Two heads, behind a layer whose channels are pruned; one of them is gated."""

    def __init__(self):
        super().__init__()
        self.embed, self.qkv, self.head = nn.Linear(3, 64), nn.Linear(64, 192), nn.Linear(64, 2)
        self.squeeze, self.excite = nn.Linear(64, 32), nn.Linear(32, 64)

    def forward(self, x):
        x = self.embed(x)
        x = x * torch.sigmoid(self.excite(torch.relu(self.squeeze(x.mean(1, keepdim=True)))))
        q, k, v = self.qkv(x).unflatten(-1, (3, 2, 32)).permute(2, 0, 3, 1, 4)
        return self.head(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2).mean(1))


def test_layers_that_make_a_factor_are_drawn_for_the_inputs_that_are_left():
    torch.manual_seed(0)
    net = net_of(Attention())
    assert {n: c.tolist() for n, c in fan_in(net, torch.randn(1, 5, 3)).items()} == {
        n: [w[0].numel()] * len(w) for n, w in net.weights.items()
    }
    net.masks["embed.weight"][:16] = False
    net.masks["squeeze.weight"][:8] = False
    counts = fan_in(net, torch.randn(1, 5, 3))
    assert counts["qkv.weight"].tolist() == [48] * 192
    assert counts["squeeze.weight"].tolist() == [0] * 8 + [48] * 24
    # Without a gate for them the channels of the embedding that are gone get none to multiply either.
    assert counts["excite.weight"].tolist() == [0] * 16 + [24] * 48

    drawn = reinit(net, torch.randn(1, 5, 3), net.weights)
    for name, left in (("qkv.weight", 48), ("squeeze.weight", 48), ("excite.weight", 24)):
        rows = drawn[name][counts[name] > 0]
        assert rows.std() == pytest.approx((2 / left) ** 0.5, rel=0.05), name


def channels_refitted(model, refit, exclude):
    options = dict(granularity="channel", refit=refit, sparsity=0.3, scope="layer", exclude=exclude)
    return pxframe.prune(model, [(torch.randn(2, 5, 3), None)], "magnitude", **options)


@pytest.mark.parametrize("refit", ["reinit", "rescale"])
def test_rows_that_are_excluded_keep_their_values(refit):
    torch.manual_seed(0)
    model = Attention()
    ticket = channels_refitted(model, refit, ["head.*", "*.weight[q]", "qkv.weight[v]"])
    start, own = ticket.start["qkv.weight"], model.qkv.weight
    assert torch.equal(start[:64], own[:64])
    assert torch.equal(start[128:], own[128:])
    kept = ticket.masks["qkv.weight"][64:128].any(1)
    assert kept.any()
    assert not torch.isclose(start[64:128][kept], own[64:128][kept]).any(1).all()


class Moved(nn.Module):
    """A deformable convolution: no path leads through the layer that makes its offsets."""

    def __init__(self):
        super().__init__()
        self.offset, self.conv = nn.Conv2d(16, 18, 3, padding=1), DeformConv2d(16, 4, 3, padding=1)

    def forward(self, x):
        return self.conv(x, self.offset(x))


def test_layers_that_no_path_leads_through_are_drawn_for_what_they_keep():
    torch.manual_seed(0)
    options = dict(granularity="channel", refit="reinit", sparsity=0)
    ticket = pxframe.prune(Moved(), [(torch.randn(1, 16, 6, 6), None)], "magnitude", **options)
    assert ticket.start["offset.weight"].std() == pytest.approx((2 / 144) ** 0.5, rel=0.05)
