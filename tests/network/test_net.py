"""Scoring leaves the model alone, tells a scorer that writes into tensors, and explains what a model cannot do."""

import copy
import functools

import numpy as np
import pytest
import torch
from torch import nn

import pxframe
from pxframe.network.net import Net
from pxframe.plugin.registry import build

X, Y = torch.randn(8, 6), torch.randint(0, 3, (8,))
SCORERS = ["magnitude", "snip", "grasp", "px", "synflow", "ntk_sap", "phew"]
#: Of those, the ones that refuse a parameter which is changed before it is used.
PATHS = ["px", "synflow", "phew"]


class Counting(nn.Module):
    """A counter, a running average, a tensor cached on first use, and a parameter clamped in ``forward``."""

    def __init__(self, clamped):
        super().__init__()
        self.clamped = clamped
        self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 3)
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.position = None
        self.register_buffer("ema", torch.zeros(8))
        self.register_buffer("n", torch.tensor(0))
        self.calls = 0
        self.wide = nn.Parameter(torch.randn(8, 8))

    def forward(self, x):
        self.calls += 1
        self.n += 1
        if self.position is None:
            self.position = torch.linspace(0, 1, 8, device=x.device)
        if self.clamped:
            self.scale.data.clamp_(max=1.0)
        x = torch.relu(self.first(x)) @ self.wide + self.position
        with torch.no_grad():
            self.ema.mul_(0.9).add_(x.mean(0), alpha=0.1)
        return self.last(x) * self.scale


@pytest.mark.parametrize("scorer", SCORERS)
def test_a_model_that_changes_itself_in_forward_is_as_it_was(scorer):
    model = Counting(clamped=scorer not in PATHS)
    before, held = copy.deepcopy(model.state_dict()), {n: t for n, t in model.named_buffers()}
    pxframe.prune(model, [(X, Y)], scorer, sparsity=0.3, rounds=2)
    assert (model.calls, model.position) == (0, None)
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    assert all(t is held[n] for n, t in model.named_buffers())
    copy.deepcopy(model)


def small():
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


WRITES = {
    "weight": lambda net, batches: net.weights["0.weight"].mul_(2),
    "bias": lambda net, batches: net.parameters["0.bias"].add_(1),
    "buffer": lambda net, batches: net.buffers["1.running_mean"].add_(1),
    "mask": lambda net, batches: net.masks["3.weight"].zero_(),
    "data": lambda net, batches: net.weights["3.weight"].data.mul_(2),
    "numpy": lambda net, batches: np.multiply(net.weights["3.weight"].numpy(), 2, net.weights["3.weight"].numpy()),
}
NAMED = {
    "weight": "0.weight",
    "bias": "0.bias",
    "buffer": "1.running_mean",
    "mask": "the mask of 3.weight",
    "data": "3.weight",
    "numpy": "3.weight",
}


class Writer(pxframe.Scorer):
    name, needs, rounds = "writer", "inputs", 2

    def __init__(self, write):
        self._write = write

    def score(self, net, batches):
        scores = {name: weight.abs() for name, weight in net.weights.items()}
        self._write(net, batches)
        return scores


@pytest.mark.parametrize("kind", WRITES)
@pytest.mark.parametrize("call", [pxframe.prune, pxframe.score])
def test_a_scorer_that_writes_is_named_and_the_model_is_unchanged(kind, call):
    model = small()
    masks = {n: torch.ones_like(model.get_parameter(n), dtype=torch.bool) for n in ("0.weight", "3.weight")}
    before = copy.deepcopy(model.state_dict())
    options = {"sparsity": 0.3} if call is pxframe.prune else {"masks": masks}
    with pytest.raises(pxframe.PxframeError, match=rf"'writer'.* wrote into {NAMED[kind]} in place"):
        call(model, [(X, Y)], Writer(WRITES[kind]), **options)
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    assert all(mask.all() for mask in masks.values())


def test_a_scorer_cannot_put_other_tensors_in_place_of_weights_and_masks():
    net = Net(small(), {"0.weight": torch.ones(8, 6, dtype=torch.bool)})
    for tensors in (net.weights, net.masks):
        with pytest.raises(TypeError):
            tensors["0.weight"] = torch.zeros(8, 6)


def test_a_scorer_that_writes_into_batches_changes_neither_the_caller_s_nor_the_next_round_s():
    seen = []

    def write(net, batches):
        for inputs, targets in batches:
            seen.append(inputs.clone())
            inputs.zero_()
            targets.zero_()

    x, y = X.clone(), Y + 1
    pxframe.prune(small(), [(x, y)], Writer(write), sparsity=0.3)
    assert len(seen) == 2
    assert all(torch.equal(s, X) for s in seen)
    assert torch.equal(x, X)
    assert torch.equal(y, Y + 1)


def test_with_takes_another_loss_or_masks_and_shares_the_rest():
    mask = torch.ones(8, 6, dtype=torch.bool)
    net = Net(small(), {"0.weight": mask})
    other = net.with_(loss=lambda o, t: o.sum(), masks={"0.weight": ~mask})
    assert float(other.loss(torch.ones(2), None)) == 2
    assert not other.masked()["0.weight"].any()
    assert net.masks["0.weight"].all()
    assert other.trace(X) is net.trace(X)
    assert other.memory is net.memory


def test_what_any_copy_requires_is_asked_for_once_in_every_round():
    net = Net(small(), {"0.weight": torch.ones(8, 6, dtype=torch.bool)})
    other = net.with_(loss=lambda o, t: o.sum())
    for one, all_of_it in ((net, other), (other, net)):
        one.require(torch.tensor(True), "holds")
        one.require(torch.tensor(False), "does not hold")
        with pytest.raises(pxframe.PxframeError, match=r"^does not hold$"):
            all_of_it.settle()
        one.settle()


def test_what_scorers_remember_and_what_the_engine_keeps_are_apart():
    net = Net(small().eval(), {"0.weight": torch.ones(8, 6, dtype=torch.bool)})
    net.memory[("scales", 2)] = net.memory[("mantissas", 2)] = "mine"
    build("scorer", dict(type="px")).score(net, [(X, None)])
    assert set(net.memory.values()) == {"mine"}


def inference_tensors():
    with torch.inference_mode():
        return small(), torch.randn(8, 6)


@pytest.mark.parametrize("scorer", ["snip", "grasp", "px", dict(type="px", variant="joint")])
def test_models_and_batches_made_in_inference_mode_are_scored(scorer):
    model, x = inference_tensors()
    assert pxframe.prune(model, [(x, Y)], scorer, sparsity=0.3, rounds=1).kept == round(0.7 * 72)


class Asking(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


BAD = {
    "no sample": (small(), "snip", [(X, Y), (X[:0], Y[:0])], r"batch 1 has no sample: its input has shape \[0, 6\]"),
    "integers": (
        small(),
        "snip",
        [(X, Y), (X.byte(), Y)],
        r"batch 1: the model fails on inputs of shape \[8, 6\] and torch.u",
    ),
    "shape": (small(), "snip", [(X, Y), (X[:, :5], Y)], r"batch 1: the model fails on inputs of shape \[8, 5\]"),
    "traced": (
        small(),
        "px",
        [(X[:, :5], Y)],
        r"on inputs of shape \[8, 5\] and torch.float32: RuntimeError in layer '0'",
    ),
    "one": (
        small(),
        "snip",
        [(X, Y), (X[:1], Y[:1])],
        r"batch 1: the model fails on inputs of shape \[1, 6\].*more than 1",
    ),
    "targets": (small(), "snip", [(X, Y), (X, Y[:3])], r"batch 1: there is no loss of an output \[8, 3\]"),
    "lazy": (nn.Sequential(nn.LazyLinear(3)), "snip", [(X, Y)], "0.weight, 0.bias has no shape yet: run one forward"),
    "inner": (nn.Sequential(torch.compile(small(), backend="eager")), "px", [(X, Y)], "'0' is compiled"),
    "parallel": (nn.Sequential(nn.DataParallel(small())), "snip", [(X, Y)], "'0' is wrapped in DataParallel; pass"),
    "asking": (
        nn.Sequential(small(), Asking()),
        "px",
        [(X, Y)],
        r"values of a tensor in layer '1' \(Asking\).*; any other",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_cannot_be_scored_costs_one_line(kind):
    model, scorer, batches, message = BAD[kind]
    with pytest.raises(pxframe.PxframeError, match=message) as found:
        pxframe.prune(model.train(), batches, scorer, sparsity=0.3, rounds=1)
    assert "\n" not in str(found.value)


def broken(output, target):
    return {}["key"]


class Half(nn.Module):
    def forward(self, output, target):
        raise ValueError("two\nlines")


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (broken, r"batch 0: the loss broken fails on an output \[8, 3\] and targets \[8\]: KeyError: 'key'; mend it"),
        (Half(), r"the loss Half fails on .*: ValueError: two lines; mend it"),
        (functools.partial(broken), "the loss broken fails on "),
        (nn.CrossEntropyLoss(weight=torch.ones(2)), r"the loss CrossEntropyLoss fails on .*: RuntimeError: weight"),
    ],
)
def test_a_loss_of_the_user_that_fails_is_named(loss, message):
    with pytest.raises(pxframe.PxframeError, match=message) as found:
        pxframe.prune(small(), [(X, Y)], "snip", sparsity=0.3, loss=loss)
    assert "\n" not in str(found.value)
    assert "pass loss=" not in str(found.value)


def test_a_loss_may_refuse_in_its_own_words():
    def refusing(output, target):
        raise pxframe.PxframeError("not these")

    with pytest.raises(pxframe.PxframeError, match=r"batch 0: not these$"):
        pxframe.prune(small(), [(X, Y)], "snip", sparsity=0.3, loss=refusing)


def test_an_unknown_operation_is_named_with_its_layer_and_a_way_out():
    class Curve(nn.Module):
        def forward(self, x):
            return torch.erf(x)

    model = nn.Sequential(nn.Linear(6, 8), nn.Sequential(Curve()), nn.Linear(8, 3))
    line = r"aten\.erf\.default \(node 'erf' of layer '1\.0' \(Curve\)\); only scorers .*; any other can"
    with pytest.raises(pxframe.PxframeError, match=line):
        pxframe.score(model, [(X, Y)], "px")
    assert not nn.modules.module._global_forward_hooks
    assert not nn.modules.module._global_forward_pre_hooks


class Tied(nn.Module):
    """Two layers of one weight, and a buffer that is not saved."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
        self.second.weight = self.first.weight
        self.register_buffer("scale", torch.ones(3), persistent=False)

    def forward(self, x):
        return self.second(self.first(x)) * self.scale


def test_a_copy_for_other_libraries_has_the_masked_weights_and_the_net_s_values():
    model = Tied().eval()
    model.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in (*model.named_parameters(), *model.named_buffers())}
    mask = torch.tensor([[True, False, True]]).expand(3, 3)
    net = Net(model, {"first.weight": mask}).at({"scale": torch.full((3,), 2.0), "first.bias": torch.ones(3)})
    copied = net.copied()
    assert torch.equal(copied.first.weight, model.first.weight * mask)
    assert copied.second.weight is copied.first.weight
    assert torch.equal(copied.first.bias, torch.ones(3))
    assert torch.equal(copied.scale, torch.full((3,), 2.0))
    assert not copied.training
    assert all(parameter.requires_grad and parameter.grad is None for parameter in copied.parameters())
    copied.first.weight.data.zero_()
    after = {name: tensor for name, tensor in (*model.named_parameters(), *model.named_buffers())}
    assert all(torch.equal(tensor, before[name]) for name, tensor in after.items())
    assert not any(parameter.requires_grad for parameter in model.parameters())
