"""Every method, granularity, guard and task rehearsed on a pretended GPU; nothing here ran on a real one."""

from collections import Counter

import pytest
import residual
import torch
import torch.nn.functional as F
import zoo
from pretend_gpu import PretendGPU
from torch import nn

import pxframe
from pxframe.network.net import Net
from pxframe.passes import samples
from pxframe.plugin import registry
from pxframe.pruning.plan import Plan

torch.set_num_threads(1)


class Small(nn.Module):
    """One of each operation that a path network builds tables for."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.block = nn.Conv2d(8, 8, 3, padding=1)
        self.query, self.layer_norm = nn.Linear(8, 24), nn.LayerNorm(8)
        self.head = nn.Linear(32, 4)
        self.register_buffer("scale", torch.full((8, 1, 1), 0.5))

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.norm(self.stem(x))), 2)
        x = x + F.gelu(self.block(x)) * self.scale
        x = F.interpolate(x, size=(5, 5), mode="bilinear")
        x = F.adaptive_avg_pool2d(x, (2, 2)).flatten(2).mT
        q, k, v = self.query(self.layer_norm(x)).chunk(3, -1)
        return self.head(F.scaled_dot_product_attention(q, k, v).flatten(1))


def small():
    torch.manual_seed(0)
    return Small()


def data(number=2):
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(4, 3, 8, 8, generator=generator), torch.arange(4)) for _ in range(number)]


def train(model, ticket, start=0, stop=None):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    ticket.guard(optimizer, model)
    for x, y in data()[start:stop]:
        optimizer.zero_grad()
        F.cross_entropy(model(x.to("cuda")), y.to("cuda")).backward()
        optimizer.step()


def in_rounds(gpu, owner, name, monkeypatch):
    plain = getattr(owner, name)

    def wrapped(*args, **kwargs):
        with gpu.round():
            return plain(*args, **kwargs)

    monkeypatch.setattr(owner, name, wrapped)


def prune(gpu, model, batches, scorer, monkeypatch, **options):
    """Prune on the device. In a round, which is to score and to choose what is kept, nothing is read or copied."""
    method = registry.build("scorer", scorer)
    # Training reads its data and, as its user likes, the loss. Phew walks on the CPU.
    if method.needs != "training" and method.name != "phew":
        in_rounds(gpu, type(method), "score", monkeypatch)
        in_rounds(gpu, type(method), "score_channels", monkeypatch)
        in_rounds(gpu, type(method), "score_groups", monkeypatch)
    # Whether many samples can be taken at once is asked once for each kind of batch.
    monkeypatch.setattr(samples, "_agree", lambda found, plain: True)
    if options.get("scope") != "layer":
        in_rounds(gpu, Plan, "masks", monkeypatch)
    return pxframe.prune(model.to("cuda"), batches, method, **options)


def options_of(method):
    options = {"type": method, **zoo.METHODS[method]}
    return options, {"sparsity": options.pop("sparsity", 0.5), "rounds": options.pop("rounds", 1)}


@pytest.mark.parametrize("method", zoo.METHODS)
def test_every_scorer(method, monkeypatch):
    scorer, options = options_of(method)
    with PretendGPU() as gpu:
        ticket = prune(gpu, small(), data(), scorer, monkeypatch, train=train, **options)
    monkeypatch.undo()
    if method != "imp" and method != "ltr" and method != "magnitude_after_training":
        here = pxframe.prune(small(), data(), scorer, **options)
        assert all(torch.equal(mask, here.masks[name]) for name, mask in ticket.masks.items())


def test_sparsegpt_and_refits():
    """They are not in the table of all methods, or no methods."""
    for options in (dict(scorer="sparsegpt"), dict(scorer="magnitude", refit="obs"), dict(scorer="snip", refit="bn")):
        with PretendGPU():
            ticket = pxframe.prune(small().to("cuda"), data(), sparsity=0.5, **options)
        here = pxframe.prune(small(), data(), sparsity=0.5, **options)
        assert all(torch.equal(mask, here.masks[name]) for name, mask in ticket.masks.items())
        assert all(torch.allclose(value, here.start[name]) for name, value in ticket.start.items())


def test_the_variant_of_px_that_takes_relus_only():
    """Its first round asks once whether it has to warn, so rounds are not watched for reads."""
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(512, 4))
    scorer, options = dict(type="px", variant="official"), dict(sparsity=0.5, rounds=3)
    here = pxframe.prune(model, data(), scorer, **options)
    with PretendGPU():
        ticket = pxframe.prune(model.to("cuda"), data(), scorer, **options)
    assert all(torch.equal(mask, here.masks[name]) for name, mask in ticket.masks.items())


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["resnet18", "convnext_atto", "vit_tiny", "efficientnet_b0", "clip RN50", "DeepLabV3+"]
)
@pytest.mark.parametrize("method", zoo.METHODS)
def test_every_scorer_on_real_networks(method, name, monkeypatch):
    scorer, options = options_of(method)
    with PretendGPU() as gpu:
        model, batches = zoo.build(name), zoo.batches(name, 2)
        given = {"loss": zoo.loss(name), "train": zoo.trainer(name), "allow_collapse": True}
        prune(gpu, model, batches, scorer, monkeypatch, **given, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"granularity": "channel", "exclude": ["head.*"]},
        {"granularity": {"type": "channel", "compute_aware": True}, "refit": "rescale", "exclude": ["head.*"]},
        {"granularity": "channel", "refit": "reinit", "exclude": ["head.*"]},
        {"granularity": "2:4", "exclude": ["stem.*"]},
        {"scope": "layer", "sparsity": 0.5},
        {"scope": "layer", "sparsity": 0.5, "distribution": "erk"},
    ],
    ids=["channel", "rescale", "reinit", "2:4", "layer", "erk"],
)
@pytest.mark.parametrize("scorer", ["snip", "px", "random", "force", "taylor"])
def test_every_granularity(scorer, options, monkeypatch):
    sparsity = {} if options.get("granularity") == "2:4" else {"sparsity": 0.5}
    with PretendGPU() as gpu:
        prune(gpu, small(), data(), scorer, monkeypatch, rounds=2, allow_collapse=True, **{**sparsity, **options})


@pytest.mark.parametrize("groups", ["mean", "entry"])
@pytest.mark.parametrize(
    "scorer", ["snip", "prospr", "random", "magnitude", "taylor", {"type": "shuffled", "of": "snip"}]
)
def test_channels_that_go_together(scorer, groups, monkeypatch):
    scorer = {"type": "prospr", "steps": 1} if scorer == "prospr" else scorer
    options = {"granularity": {"type": "channel", "groups": groups}, "exclude": ["head.*"], "allow_collapse": True}
    options |= {"sparsity": 0.5, "rounds": 2}
    with PretendGPU() as gpu:
        ticket = prune(gpu, residual.residual(), residual.data(), scorer, monkeypatch, **options)
    monkeypatch.undo()
    here = pxframe.prune(residual.residual(), residual.data(), scorer, **options)
    assert all(torch.equal(mask, here.masks[name]) for name, mask in ticket.masks.items())


def reads_of_a_round(layers, scope):
    """How many reads one more round takes, of a network of so many layers."""
    seen = []
    for rounds in (2, 3):
        torch.manual_seed(0)
        model = nn.Sequential(*(nn.Sequential(nn.Linear(16, 16), nn.ReLU()) for _ in range(layers)))
        with PretendGPU() as gpu:
            pxframe.prune(model.to("cuda"), [(torch.rand(4, 16), torch.arange(4))], "px", 0.1, rounds, scope=scope)
        seen.append(Counter(fault.kind for fault in gpu.seen))
    return seen[1] - seen[0]


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_what_a_round_reads_does_not_grow_with_the_layers(scope):
    few, many = reads_of_a_round(2, scope), reads_of_a_round(8, scope)
    assert max(few["read"], many["read"]) <= 5  # the checks at its end, and the layers' counts
    assert few["copy"] == many["copy"] == 0


class Constant(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x):
        return self.layer(x * torch.tensor([1.0, 2.0, 3.0]).to(x.device))


def test_constants_of_forward_are_copied_once():
    """The model's own code copies them in each forward pass; a path network does not."""
    with PretendGPU() as gpu:
        model, x = Constant().to("cuda"), torch.rand(4, 3, device="cuda")
        net = Net(model, {"layer.weight": torch.ones(2, 3, dtype=torch.bool, device="cuda")})
        net.trace(x), net.trace(x[:1])
        with gpu.round():
            scores = registry.build("scorer", "px").score(net, [(x, None)])
    assert (scores["layer.weight"] > 0).all()
