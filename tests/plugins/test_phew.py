"""PHEW's walks against the probabilities they are to have, and what is kept against what was walked."""

import math
from collections import Counter, defaultdict
from itertools import pairwise

import pytest
import timm
import torch
import torchvision
import zoo
from torch import nn

import pxframe
from pxframe.network.net import Net
from pxframe.plugin import host
from pxframe.running.undisturbed import derived_seed, stream
from pxframe.scoring.paths import f_tensors
from pxframe_plugins.phew.graph import read_units
from pxframe_plugins.phew.units import Product
from pxframe_plugins.phew.walk import Walks


def as_net(model, masks=None):
    weights = {n: p for n, p in model.named_parameters() if p.ndim > 1}
    return Net(model, masks or {n: torch.ones_like(p, dtype=torch.bool) for n, p in weights.items()})


def walked(model, shape, number, forward, masks=None, seed=0):
    """For every walk its (name, place) in order of steps."""
    net = as_net(model, masks)
    weights = {**net.parameters, **net.masked()}
    walks = Walks(read_units(net.trace(torch.zeros(1, *shape)), f_tensors(net)), weights)
    paths = [[] for _ in range(number)]
    for _, which, _, name, places in walks.walk(number, forward, torch.Generator().manual_seed(seed)):
        if name is not None:
            for walk, place in zip(which.tolist(), places.tolist(), strict=True):
                paths[walk].append((name, place))
    return paths


LAYERS = {
    "convolution": (nn.Conv2d(4, 6, 3, padding=1), nn.Conv2d(6, 2, 1)),
    "strided": (nn.Conv2d(4, 6, (1, 3), stride=2), nn.Conv2d(6, 2, 1)),
    "grouped": (nn.Conv2d(4, 6, 3, groups=2, padding=1), nn.Conv2d(6, 2, 1)),
    "depthwise": (nn.Conv2d(4, 8, 3, groups=4, padding=1), nn.Conv2d(8, 2, 1)),
    "transposed": (nn.ConvTranspose2d(4, 6, 2, stride=2, groups=2), nn.Conv2d(6, 2, 1)),
    "flattened": (nn.Flatten(), nn.Linear(4 * 6 * 6, 5)),
    "linear": (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)),
}


def ends(module, shape):
    """For each weight the input channel and the output channel it is between."""
    index = torch.cartesian_prod(*(torch.arange(n) for n in module.weight.shape))
    if isinstance(module, nn.Linear):
        per_unit = 36 if module.in_features == 144 else 1
        return index[:, 1] // per_unit, index[:, 0]
    first, second = index[:, 0], index[:, 1]
    out, groups = module.out_channels // module.groups, module.groups
    if isinstance(module, nn.ConvTranspose2d):
        return first, first // (module.in_channels // groups) * out + second
    return first // out * (module.in_channels // groups) + second, first


@pytest.mark.parametrize("forward", [True, False])
@pytest.mark.parametrize("layers", LAYERS)
def test_weights_are_passed_with_the_stated_probabilities(layers, forward):
    """From each unit |w| over the sum of what leads out of it; in reverse, of what leads into it."""
    torch.manual_seed(0)
    model = nn.Sequential(*LAYERS[layers])
    masks = {}
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter)
            masks[name] = torch.rand(parameter.shape) < (1 if masks else 0.8)  # units of the first all lead on
    paths = walked(model, (4, 6, 6), 20000, forward, masks)
    for at, module in enumerate(model):
        name = f"{at}.weight"
        if name not in masks:
            continue
        source = ends(module, None)[0 if forward else 1]
        found = torch.bincount(torch.tensor([p for path in paths for n, p in path if n == name]), minlength=len(source))
        assert found.sum() == len(paths)
        for power in (1, 2):  # the second must be seen to be wrong
            magnitude = (module.weight.detach() * masks[name]).abs().flatten().double().pow(power)
            total = torch.zeros(int(source.max()) + 1, dtype=torch.float64).index_add_(0, source, magnitude)
            arrived = torch.zeros(len(total)).index_add_(0, source, found.float())
            expected = arrived[source] * magnitude / total[source]
            assert not found[expected == 0].any()
            held = expected > 0
            chi_squared = float(((found - expected)[held] ** 2 / expected[held]).sum())
            freedom = int(held.sum()) - int((arrived > 0).sum())
            likely = freedom + 5 * math.sqrt(2 * freedom)
            assert (chi_squared < likely) == (power == 1)


class Branches(nn.Module):
    """A residual branch, then three branches side by side, one of which is the skip itself."""

    def __init__(self):
        super().__init__()
        self.stem, self.branch = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, padding=1)
        self.a, self.b, self.fc = nn.Conv2d(4, 5, 1), nn.Conv2d(4, 5, 1), nn.Linear(14, 2)

    def forward(self, x):
        x = self.stem(x).relu()
        x = x + self.branch(x)
        x = torch.cat([self.a(x), x, torch.ones_like(x[:, :0]), self.b(x)], 1).mean((2, 3))
        return self.fc(x)


@pytest.mark.parametrize("forward", [True, False])
def test_branches_are_as_likely(forward):
    torch.manual_seed(0)
    model, number = Branches(), 20000
    with torch.no_grad():
        model.fc.weight.fill_(1.0)  # in reverse, every channel of the concatenation is as likely
    counts = Counter(name for path in walked(model, (3, 8, 8), number, forward) for name, _ in path)
    assert counts["stem.weight"] == counts["fc.weight"] == number
    share = {"branch": 1 / 2, "a": 1 / 3 if forward else 5 / 14, "b": 1 / 3 if forward else 5 / 14}
    for name, p in share.items():
        assert abs(counts[f"{name}.weight"] - number * p) < 5 * math.sqrt(number * p * (1 - p))


def test_each_addition_is_a_choice_of_its_own():
    class Twice(Branches):
        def forward(self, x):
            x = self.stem(x)
            return x + self.branch(x) + 2 * self.branch(x.relu())

    counts = Counter(name for path in walked(Twice(), (3, 8, 8), 20000, False) for name, _ in path)
    assert abs(counts["branch.weight"] - 15000) < 5 * math.sqrt(20000 * 3 / 16)


@pytest.mark.parametrize("forward", [True, False])
def test_starts_are_uniform(forward):
    torch.manual_seed(0)
    model, number = nn.Sequential(nn.Conv2d(5, 7, 3), nn.ReLU(), nn.Conv2d(7, 5, 1)), 20000
    first = Counter(
        place % 45 // 9 if forward else place // 7
        for path in walked(model, (5, 4, 4), number, forward)
        for _, place in path[:1]
    )
    assert sorted(first) == list(range(5))
    assert sum((n - number / 5) ** 2 / (number / 5) for n in first.values()) < 4 + 5 * math.sqrt(8)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("forward", [True, False])
def test_walks_are_connected_paths_of_kept_weights(forward, masked):
    torch.manual_seed(0)
    model = Branches()
    masks = {n: torch.rand(p.shape) < (0.4 if masked else 2) for n, p in model.named_parameters() if p.ndim > 1}
    masks["branch.weight"][2] = False  # a unit that nothing leads to,
    masks["stem.weight"][1] = False  # one that nothing leads to in either branch,
    masks["stem.weight"][3] = True
    masks["a.weight"][:, 3], masks["b.weight"][:, 3], masks["fc.weight"][:, 8] = False, False, False  # or out of
    seen = set()
    for path in walked(model, (3, 8, 8), 3000, forward, masks):
        path = path if forward else path[::-1]
        names = [name.split(".")[0] for name, _ in path]
        assert names in [[*["stem", "branch"][:k], *side, "fc"] for k in (1, 2) for side in ([], ["a"], ["b"])]
        at = None
        for name, place in path:
            assert masks[name].flatten()[place]
            out, into = divmod(place // model.get_parameter(name)[0, 0].numel(), masks[name].shape[1])
            if name == "fc.weight":
                offset = {"a": 0, "b": 9}.get(names[-2], 5)
                into -= offset
            assert at in (None, into)
            at = out
        seen.add(tuple(names))
        assert ("branch.weight", 2) not in [(n, p // 36) for n, p in path]
        assert not any(n == "stem.weight" and p // 27 == 3 and "branch" not in names for n, p in path)
    assert len(seen) == 6


@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.65, 0.9, 0.97])
def test_counts_are_exact_in_every_round_and_repeat(sparsity):
    class Watch:
        def __init__(self):
            self.kept = []

        @pxframe.hookimpl
        def pxframe_round_done(self, density, masks):
            self.kept.append((round(density * 320), sum(int(m.sum()) for m in masks.values())))

    torch.manual_seed(0)
    model = Branches()
    before = {n: t.clone() for n, t in model.state_dict().items()}
    tickets, watch = {}, Watch()
    host.host().manager.register(watch)
    try:
        for run, seed in (("a", 0), ("b", 0), ("c", 1)):
            batches = [(torch.randn(2, 3, 8, 8), None)]
            tickets[run] = pxframe.prune(model, batches, scorer="phew", sparsity=sparsity, rounds=2, seed=seed)
    finally:
        host.host().manager.unregister(watch)
    assert tickets["a"].total == 320
    assert len(watch.kept) == 6
    assert all(asked == kept for asked, kept in watch.kept)
    assert all(torch.equal(m, tickets["b"].masks[n]) for n, m in tickets["a"].masks.items())
    assert sparsity == 0 or any(not torch.equal(m, tickets["c"].masks[n]) for n, m in tickets["a"].masks.items())
    assert all(torch.equal(before[n], t) for n, t in model.state_dict().items())
    assert all(m.training for m in model.modules())


def flow(model, masks):
    """By weight, the sum over all kept paths through it of their magnitudes: zero where there is none."""
    theta = {n: (model.get_parameter(n).detach().abs() * m).double().requires_grad_() for n, m in masks.items()}
    stem, branch = (theta[f"{n}.weight"].sum((2, 3)) for n in ("stem", "branch"))
    x = stem.sum(1)
    x = x + branch @ x
    x = torch.cat([theta["a.weight"][..., 0, 0] @ x, x, theta["b.weight"][..., 0, 0] @ x])
    total = (theta["fc.weight"] @ x).sum()
    return {n: g * theta[n] for n, g in zip(theta, torch.autograd.grad(total, list(theta.values())), strict=True)}


def test_what_is_kept_lies_on_kept_paths_but_for_the_last_walk():
    torch.manual_seed(1)
    model, batches = Branches(), [(torch.randn(2, 3, 8, 8), None)]

    def dangling(count, scorer):
        ticket = pxframe.prune(model, batches, scorer=scorer, sparsity=1 - count / 320, rounds=1)
        assert ticket.kept == count
        through = flow(model, ticket.masks)
        return sum(int((m & (through[n] == 0)).sum()) for n, m in ticket.masks.items())

    found = [dangling(count, "phew") for count in range(8, 56, 3)]
    assert max(found) <= 3  # of at most four weights, the last one of a walk completes it
    assert 0 in found
    assert dangling(40, "magnitude") > 3


def test_earlier_is_kept_first():
    torch.manual_seed(1)
    model, batches = Branches(), [(torch.randn(2, 3, 8, 8), None)]
    tickets = [pxframe.prune(model, batches, scorer="phew", sparsity=1 - n / 320) for n in (10, 25, 60, 200)]
    for few, many in pairwise(tickets):
        assert all((~m | many.masks[n]).all() for n, m in few.masks.items())
    # The first walks, forward and reverse in turn, are remade one batch at a time: all their weights are kept.
    count = tickets[0].kept
    generator = stream(derived_seed(0, "pruning"), "seeded")  # what a scorer of that seed is given
    net = as_net(model)
    walks = Walks(read_units(net.trace(torch.zeros(1, 3, 8, 8)), f_tensors(net)), net.parameters)
    turns = []
    for forward in (True, False):
        paths = defaultdict(list)
        for _, which, _, name, places in walks.walk(4096, forward, generator):
            for walk, place in zip(which.tolist(), places.tolist() if name else [None] * len(which), strict=True):
                paths[walk] += [(name, place)] if name else []
        turns.append(paths)
    kept = list(dict.fromkeys(pair for walk in range(20) for paths in turns for pair in paths[walk]))[:count]
    assert {n: sorted(p for name, p in kept if name == n) for n in tickets[0].masks} == {
        n: m.flatten().nonzero().flatten().tolist() for n, m in tickets[0].masks.items()
    }


def test_what_no_walk_reaches_comes_last_by_magnitude():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    with torch.no_grad():
        model[0].weight[2] = torch.tensor([5.0, -9.0, 7.0])  # a unit that leads nowhere
        model[2].weight[:, 2] = 0
    ticket = pxframe.prune(model, [(torch.randn(2, 3), None)], scorer="phew", sparsity=1 - 17 / 20)
    expected = torch.ones(4, 3, dtype=torch.bool)
    expected[2, 0] = False
    assert torch.equal(ticket.masks["0.weight"], expected)
    assert ticket.masks["2.weight"].sum(0).tolist() == [2, 2, 0, 2]


def test_a_network_without_a_path_is_filled_by_magnitude_until_the_loop_refuses_it():
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    nn.init.zeros_(model[1].weight)
    with pytest.raises(pxframe.PxframeError, match=r"even before pruning: 1\.weight is zero throughout"):
        pxframe.prune(model, [(torch.randn(2, 3), None)], scorer="phew", sparsity=0.5)


REAL = {  # additions, and how many weights are not walked: squeeze-excite's
    "resnet18": (torchvision.models.resnet18, 8, 0),
    "mobilenet": (lambda: timm.create_model("mobilenetv3_small_050"), 7, 18),
    "convnext": (lambda: timm.create_model("convnext_atto"), 12, 0),
    "deeplab": (lambda: zoo.DeepLab(full=True), 16, 0),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", REAL)
def test_every_weight_of_real_models_has_its_place(name):
    build, joins, left_out = REAL[name]
    net = as_net(build())
    units = read_units(net.trace(torch.zeros(1, 3, 64, 64)), f_tensors(net))
    products = [o for o in units.operations if isinstance(o, Product)]
    assert len(units.operations) - len(products) == joins
    assert len({p.name for p in products}) == len(products) == len(net.weights) - left_out
    for one in products:
        weight = net.weights[one.name]
        assert torch.equal(one.index.flatten().sort().values, torch.arange(weight.numel()).int())
        groups, ins, outs, _ = one.index.shape
        unit, channel = one.sources
        assert torch.equal(channel.unique(), torch.arange(groups * ins))  # every channel holds something
        assert len(channel) == groups * ins  # and one unit's values only
        assert one.index[0, 0, outs - 1, 0] == (outs - 1) * weight[0].numel()
        assert unit.max() < one.first


def test_a_real_model_is_pruned_the_same_in_any_layout():
    torch.manual_seed(0)
    model = REAL["mobilenet"][0]()
    tickets = []
    for layout in (torch.contiguous_format, torch.channels_last):
        model.to(memory_format=layout)
        batches = [(torch.randn(1, 3, 64, 64).to(memory_format=layout), None)]
        tickets.append(pxframe.prune(model, batches, scorer="phew", sparsity=0.99))
    assert tickets[0].kept == round(0.01 * tickets[0].total)
    assert all(torch.equal(m, tickets[1].masks[n]) for n, m in tickets[0].masks.items())
    assert all(m.any() for n, m in tickets[0].masks.items() if ".se." not in n)


def test_scores_alone_are_refused():
    with pytest.raises(pxframe.PxframeError, match=r"walks until a density is reached; use pxframe\.prune") as error:
        pxframe.score(Branches(), [(torch.randn(1, 3, 8, 8), None)], scorer="phew")
    assert "\n" not in str(error.value)


def test_weights_that_are_not_finite_are_refused():
    model = Branches()
    with torch.no_grad():
        model.a.weight[0] = math.nan
    with pytest.raises(pxframe.PxframeError, match=r"'a\.weight' are not finite; load them again, or draw new"):
        pxframe.prune(model, [(torch.randn(1, 3, 8, 8), None)], scorer="phew")


class Product2(nn.Linear):
    def forward(self, x):
        return super().forward(x) * x


class Mixer(nn.Linear):
    def forward(self, x):  # positions are mixed, channel by channel
        return super().forward(x.flatten(2)).mean(2)


@pytest.mark.parametrize(
    ("model", "shape", "words"),
    [
        (Product2(4, 4), (4,), r"aten\.mul\.Tensor of several activations"),
        (Mixer(9, 9), (4, 3, 3), r"over positions instead of channels .*; use a scorer that makes no walks"),
    ],
)
def test_what_cannot_be_followed_is_named(model, shape, words):
    with pytest.raises(pxframe.PxframeError, match=words):
        pxframe.prune(model, [(torch.randn(1, *shape), None)], scorer="phew", sparsity=0.5)
