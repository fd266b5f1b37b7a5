"""Gradients of single samples against a loop over them, on models that vmap takes and models that it does not."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import pxframe
from pxframe.network.net import Net


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.attention = nn.Linear(3, 8), nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 3)

    def forward(self, x):
        x = self.embed(x.flatten(2).mT)
        x = self.norm(x + self.attention(x, x, x, need_weights=False)[0])
        return self.head(x.mean(1))


class Branching(nn.Module):
    """Which layer it takes depends on a number that it reads back, which vmap refuses."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.reads = nn.Linear(3, 3), nn.Linear(3, 3), 0

    def forward(self, x):
        self.reads += 1
        x = x.mean((2, 3))
        return self.a(x) if float(x.sum()) > 0 else self.b(x)


class Writing(nn.Module):
    """Writes a running mean of the data into a buffer, in eval mode too, and reads it."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.register_buffer("mean", torch.zeros(3))

    def forward(self, x):
        x = x.mean((2, 3))
        self.mean.mul_(0.5).add_(x.mean(0), alpha=0.5)
        return self.layer(x - self.mean)


class Counted(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, g):
        return 3 * g


class Custom(nn.Sequential):
    """A function with a backward pass of its own, in a form that functorch does not take."""

    def forward(self, x):
        return Counted.apply(super().forward(x))


class Deceiving(nn.Module):
    """Under vmap it computes something else without an error: it looks at what kind of tensor it is given."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x):
        factor = 2 if torch._C._functorch.is_functorch_wrapped_tensor(x) else 1
        return factor * self.layer(x.mean((2, 3)))


class Nested(nn.Module):
    def __init__(self):
        super().__init__()
        self.image, self.words, self.head = nn.Conv2d(3, 4, 3), nn.Embedding(5, 4), nn.Linear(4, 3)

    def forward(self, image, side):
        return {"out": [self.head(torch.relu(self.image(image)).mean((2, 3)) + self.words(side["word"]) * side["by"])]}


def convolutions():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3, groups=2),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(),
        nn.Linear(4, 3),
    )


def mean(*layers):
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), *layers)


#: By name: the model, and whether many samples can be taken at once.
CASES = {
    "convolutions": (convolutions, True),
    "attention": (Attention, True),
    "branching": (Branching, False),
    "writing": (Writing, False),
    "custom": (lambda: Custom(*mean(nn.Linear(3, 3))), False),
    "deceiving": (Deceiving, False),
}


def batch(samples, seed=1, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(samples, 3, 6, 6, generator=generator, dtype=dtype), torch.arange(samples) % 3


def build(make, dtype=torch.float64):
    torch.manual_seed(0)
    model = make().to(dtype)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.normal_(module.running_mean)
    return model


def net_of(model, loss=None, share=0.7):
    generator = torch.Generator().manual_seed(2)
    masks = {n: torch.rand(p.shape, generator=generator) < share for n, p in model.named_parameters() if p.ndim > 1}
    return Net(model, masks, loss)


def loop(net, model, batches, loss=F.cross_entropy):
    """One sample after the other, by plain autograd on a copy in eval mode."""
    found = []
    for x, y in batches:
        for n in range(len(x)):
            one = copy.deepcopy(model).eval()
            with torch.no_grad():
                for name, mask in net.masks.items():
                    one.get_parameter(name).mul_(mask)
            ends = [one.get_parameter(name) for name in net.masks]
            gradients = torch.autograd.grad(loss(one(x[n : n + 1]), y[n : n + 1]), ends, allow_unused=True)
            found.append([torch.zeros_like(e) if g is None else g for e, g in zip(ends, gradients, strict=True)])
    return {name: torch.stack(g) for name, g in zip(net.masks, zip(*found, strict=True), strict=True)}


def joined(chunks):
    chunks = list(chunks)
    return {name: torch.cat([chunk[name] for chunk in chunks]) for name in chunks[0]}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("chunk", [None, 1, 3])
@pytest.mark.parametrize("case", CASES)
def test_they_are_those_of_a_loop(case, chunk, training):
    make, can = CASES[case]
    model, batches = build(make).train(training), [batch(5), batch(2, seed=3)]
    net = net_of(model)
    before, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    found = list(net.sample_gradients(batches, chunk=chunk))
    expected = loop(net, model, batches)
    for name, gradient in joined(found).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-9, atol=1e-12)
        assert not gradient.requires_grad
    sizes = [len(next(iter(part.values()))) for part in found]
    whole = {None: [5, 2], 1: [1] * 7, 3: [3, 2, 2]}[chunk]
    assert sizes == (whole if can else [1] * 7)
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    assert torch.equal(random, torch.get_rng_state())
    assert all(module.training == training for module in model.modules())
    assert getattr(model, "reads", 0) == 0


def test_in_float32_too():
    model, batches = build(convolutions, torch.float32), [batch(5, dtype=torch.float32)]
    net = net_of(model)
    found, expected = joined(net.sample_gradients(batches)), loop(net, model, batches)
    assert list(net.together.values()) == [True]
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name])


def test_of_some_layers_at_the_masks_of_all():
    model, batches = build(convolutions), [batch(4)]
    net = net_of(model)
    expected = loop(net, model, batches)
    for chunk in (1, 4):
        found = joined(net.sample_gradients(batches, names=["3.weight"], chunk=chunk))
        assert set(found) == {"3.weight"}
        torch.testing.assert_close(found["3.weight"], expected["3.weight"], rtol=1e-9, atol=1e-12)


def test_their_mean_is_the_gradient_of_the_batch():
    model, (x, y) = build(convolutions).eval(), batch(6)
    net = net_of(model)
    found, expected = joined(net.sample_gradients([(x, y)])), net.gradients([(x, y)])
    for name, gradient in found.items():
        torch.testing.assert_close(gradient.mean(0), expected[name], rtol=1e-9, atol=1e-12)


def test_inputs_and_targets_may_be_nested():
    model = build(Nested)
    images, labels = batch(4)
    inputs = {"image": images, "side": {"word": torch.arange(4), "by": 0.5}}

    def loss(output, target):
        return F.cross_entropy(output["out"][0], target["class"]) * target["factor"]

    net = net_of(model, loss)
    found = joined(net.sample_gradients([(inputs, {"class": labels, "factor": 3.0})]))
    assert list(net.together.values()) == [True]
    for n in range(4):
        one = {"image": images[n : n + 1], "side": {"word": torch.arange(4)[n : n + 1], "by": 0.5}}
        alone = net.gradients([(one, {"class": labels[n : n + 1], "factor": 3.0})])
        for name, gradient in alone.items():
            torch.testing.assert_close(found[name][n], gradient, rtol=1e-9, atol=1e-12)


def test_a_loss_without_targets():
    model = build(convolutions)
    net = net_of(model, lambda output, target: output.square().sum())
    x, _ = batch(3)
    found = joined(net.sample_gradients([(x, None)]))
    expected = loop(net, model, [(x, torch.zeros(3))], lambda output, target: output.square().sum())
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-9, atol=1e-12)


class Lists(nn.Linear):
    def forward(self, images):
        return super().forward(torch.stack(images).mean((2, 3)))


@pytest.mark.parametrize(
    ("model", "pair", "words"),
    [
        (convolutions, (batch(4)[0], torch.arange(3)), r"batch 0: a target of shape \[3\] beside 4 samples"),
        (convolutions, (batch(4)[0], torch.tensor(1)), r"batch 0: a target of shape \[\] beside 4 samples"),
        (lambda: Lists(3, 3), (([*batch(3)[0]],), torch.arange(3)), "batch 0: the input holds a list"),
        (convolutions, (batch(4)[0][:, :2], torch.arange(4)), r"batch 0: the model fails on inputs of shape \[1, 2"),
        (convolutions, (batch(4)[0], torch.arange(4).double()), "batch 0: there is no loss of an output"),
    ],
    ids=["length", "number", "list", "model", "loss"],
)
def test_what_cannot_be_done_costs_one_line(model, pair, words):
    net = net_of(build(model))
    with pytest.raises(pxframe.PxframeError, match=words) as error:
        list(net.sample_gradients([pair]))
    assert "\n" not in str(error.value)
