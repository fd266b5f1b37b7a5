"""NTK-SAP against its objective written out by hand, and against the explicit Jacobian it stands for."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import pxframe
from pxframe.plugin import host
from pxframe.running.undisturbed import derived_seed, stream


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 3, 3, stride=2),
        nn.BatchNorm2d(3),
        nn.Tanh(),
        nn.Dropout(0.5),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(3, 3),
    ).double()
    nn.init.normal_(model[1].weight)
    nn.init.normal_(model[1].bias)
    nn.init.normal_(model[1].running_mean)
    nn.init.uniform_(model[1].running_var, 0.5, 9.0)
    return model


@pytest.fixture
def batches():
    return [(torch.randn(4, 2, 6, 6, dtype=torch.float64), None)]


def outputs(model, z, conv, linear):
    """The fixture's model in its training-mode formulas, without dropout; any dimensions may come before."""
    patches = F.unfold(z.flatten(0, -4), 3, stride=2).unflatten(0, z.shape[:-3])  # [..., samples, 18, 2 * 2]
    x = conv.flatten(-3).unsqueeze(-3) @ patches + model[0].bias[:, None]
    mean = x.mean((-3, -1), keepdim=True)
    variance = (x - mean).square().mean((-3, -1), keepdim=True)
    x = (x - mean) / (variance + model[1].eps).sqrt() * model[1].weight[:, None] + model[1].bias[:, None]
    return torch.tanh(x).mean(-1) @ linear.mT + model[6].bias


def draw(model, shape, generator, redraw=False):
    """z, theta and Delta in the order they are drawn in."""
    z = torch.randn(shape, generator=generator, dtype=torch.float64)
    theta = [model[0].weight.detach(), model[6].weight.detach()]
    if redraw:
        deviations = [math.sqrt(2 / (2 * 3 * 3)), math.sqrt(2 / 3)]  # fan in 18 and 3
        theta = [
            torch.randn(t.shape, generator=generator, dtype=torch.float64) * d
            for t, d in zip(theta, deviations, strict=True)
        ]
    delta = [torch.randn(t.shape, generator=generator, dtype=torch.float64) for t in theta]
    return z, theta, delta


def distance(model, z, theta, delta, masks, eps):
    a = outputs(model, z, *(t * m for t, m in zip(theta, masks, strict=True)))
    b = outputs(model, z, *((t + eps * d) * m for t, d, m in zip(theta, delta, masks, strict=True)))
    return (a - b).square().sum((-2, -1))


@pytest.mark.parametrize(
    ("draws", "redraw", "masked", "training"),
    [(1, False, False, False), (3, False, True, True), (2, True, False, True), (2, True, True, False)],
)
def test_scores_equal_central_differences_of_the_objective_in_the_mask(model, batches, draws, redraw, masked, training):
    model.train(training)
    names = ["0.weight", "6.weight"]
    shapes = [model.get_parameter(n).shape for n in names]
    masks = [torch.rand(s) < 0.6 if masked else torch.ones(s, dtype=torch.bool) for s in shapes]
    options = dict(eps=0.3, draws=draws, redraw=redraw)
    found = pxframe.score(
        model, batches, scorer="ntk_sap", seed=5, masks=dict(zip(names, masks, strict=True)), **options
    )
    generator = stream(derived_seed(5, "pruning"), "seeded")  # what a scorer of that seed is given
    made = [draw(model, (4, 2, 6, 6), generator, redraw) for _ in range(draws)]
    with torch.no_grad():
        for layer, name in enumerate(names):
            for index in range(shapes[layer].numel()):
                values = []
                for step in (1e-5, -1e-5):
                    moved = [m.double() for m in masks]
                    moved[layer].view(-1)[index] += step
                    values.append(float(sum(distance(model, *one, moved, 0.3) for one in made)))
                difference = abs(values[0] - values[1]) / 2e-5
                assert found[name].view(-1)[index] == pytest.approx(difference, rel=1e-5, abs=1e-8)


def test_the_objective_is_the_trace_of_the_ntk(model, batches):
    """Over Delta, L / eps^2 is on average ||J||_F^2, J = d f / d theta at theta * m: in value, and in d/dm.

    With masks, (theta + eps Delta) * m moves theta * m by eps Delta * m, so an entry of J counts m times.
    """
    names, runs, eps = ["0.weight", "6.weight"], 300, 1e-4
    masks = [torch.rand(model.get_parameter(n).shape) < 0.8 for n in names]
    found = pxframe.score(
        model, batches, scorer="ntk_sap", masks=dict(zip(names, masks, strict=True)), seed=3, eps=eps, draws=runs
    )
    found = torch.cat([found[n].flatten() for n in names]) / eps**2 / runs
    generator = torch.Generator().manual_seed(3)
    made = [draw(model, (4, 2, 6, 6), generator) for _ in range(runs)]
    theta = made[0][1]
    z = torch.stack([z for z, _, _ in made])
    delta = [torch.stack([d[layer] for _, _, d in made]) for layer in (0, 1)]
    leaves = [m.double().expand(runs, *m.shape).clone().requires_grad_() for m in masks]  # a mask for every draw

    def per_draw(values):
        """d/dm and the value itself, ``[draws, weights]`` and ``[draws]``."""
        gradients = torch.autograd.grad(values.sum(), leaves)
        return torch.cat([g.flatten(1) for g in gradients], 1), values.detach()

    drawn, values = per_draw(distance(model, z, theta, delta, leaves, eps) / eps**2)
    weights = [t * m for t, m in zip(theta, leaves, strict=True)]
    norms = torch.zeros(())
    for output in outputs(model, z, *weights).flatten(1).unbind(1):  # a row of every draw's Jacobian
        rows = torch.autograd.grad(output.sum(), weights, create_graph=True)
        norms = norms + sum((row * m).flatten(1).square().sum(1) for row, m in zip(rows, leaves, strict=True))
    expected, norms = per_draw(norms)
    error = (drawn - expected).std(0) / math.sqrt(runs)  # of the mean over draws, the same z in both
    assert ((found - expected.mean(0).abs()).abs() <= 4 * error + 1e-3 * found).all()
    assert (expected.mean(0).abs() > 10 * error).any()  # the error is small enough to tell
    error = (values - norms).std() / math.sqrt(runs)
    assert error < 0.05 * norms.mean()
    assert (values - norms).mean().abs() <= 4 * error


def test_batch_norm_reads_z_and_nothing_else_in_any_mode(model, batches):
    names = [n for n, _ in model.named_buffers()]
    model.eval()
    first = pxframe.score(model, batches, scorer="ntk_sap")
    model.train()
    second = pxframe.score(model, [(batches[0][0] + 3, None)], scorer="ntk_sap")
    with torch.no_grad():
        model[1].running_mean.add_(5)
        model[1].running_var.mul_(7)
    third = pxframe.score(model, batches, scorer="ntk_sap")
    assert names == [n for n, _ in model.named_buffers()]
    for name, score in first.items():
        assert score.max() > 0
        assert torch.equal(score, second[name])
        assert torch.equal(score, third[name])


def test_redraw_reads_no_prunable_weight_and_leaves_the_model_alone(model, batches):
    model.train()
    model[1].eval()
    before = {n: t.clone() for n, t in model.state_dict().items()}
    flags = [m.training for m in model.modules()]
    versions = [t._version for t in (*model.parameters(), *model.buffers())]
    first = pxframe.score(model, batches, scorer="ntk_sap", redraw=True)
    pxframe.prune(model, batches, scorer="ntk_sap", sparsity=0.5, rounds=2, redraw=True)
    assert all(torch.equal(before[n], t) for n, t in model.state_dict().items())
    assert flags == [m.training for m in model.modules()]
    assert versions == [t._version for t in (*model.parameters(), *model.buffers())]
    kept = pxframe.score(model, batches, scorer="ntk_sap")
    with torch.no_grad():
        model[0].weight.mul_(3)
    second = pxframe.score(model, batches, scorer="ntk_sap", redraw=True)
    assert all(torch.equal(first[n], second[n]) for n in first)
    assert not torch.equal(kept["6.weight"], first["6.weight"])


def test_every_floating_output_counts(model, batches):
    class Several(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = model

        def forward(self, x):
            y = self.inner(x)
            return {"y": y, "more": [2 * y, (y.argmax(1), y[:, :0])]}

    one = pxframe.score(model, batches, scorer="ntk_sap")
    several = pxframe.score(Several(), batches, scorer="ntk_sap")
    assert all(torch.allclose(5 * score, several[f"inner.{n}"], rtol=1e-12) for n, score in one.items())


def test_every_round_is_exact_and_draws_anew_and_a_seed_repeats(model, batches):
    class Watch:
        def __init__(self):
            self.kept, self.scores = [], []

        @pxframe.hookimpl
        def pxframe_round_done(self, density, scores, masks):
            self.kept.append((round(density * 63), sum(int(m.sum()) for m in masks.values())))
            self.scores.append(torch.cat([s.flatten() for s in scores.values()]))

    tickets = []
    for seed in (0, 0, 1):
        watch = Watch()
        host.host().manager.register(watch)
        try:
            tickets.append(pxframe.prune(model, batches, scorer="ntk_sap", sparsity=0.7, rounds=5, seed=seed))
        finally:
            host.host().manager.unregister(watch)
        assert len(watch.kept) == 5
        assert all(asked == kept for asked, kept in watch.kept)
        assert len({float(s.sum()) for s in watch.scores}) == 5
    assert all(torch.equal(m, tickets[1].masks[n]) for n, m in tickets[0].masks.items())
    assert any(not torch.equal(m, tickets[2].masks[n]) for n, m in tickets[0].masks.items())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"eps": 0}, "'eps' must be a finite number above 0, got 0"),
        ({"eps": "small"}, "'eps' must be a finite number above 0, got 'small'"),
        ({"eps": math.nan}, "'eps' must be a finite number above 0, got nan"),
        ({"draws": 0}, "'draws' must be a whole number of at least 1, got 0"),
        ({"draws": True}, "'draws' must be a whole number of at least 1, got True"),
        ({"redraw": 1}, "'redraw' must be True or False, got 1"),
    ],
)
def test_options_are_checked(model, batches, options, words):
    with pytest.raises(pxframe.PxframeError, match=words):
        pxframe.score(model, batches, scorer="ntk_sap", **options)


def test_one_value_per_channel_is_an_error_in_one_line(model):
    with pytest.raises(pxframe.PxframeError, match=r"shape \[1, 2, 3, 3\].*give larger batches") as error:
        pxframe.score(nn.Sequential(*model[:3]), [(torch.ones(1, 2, 3, 3).double(), None)], scorer="ntk_sap")
    assert "\n" not in str(error.value)
    assert all(m.training for m in model.modules())


def test_inputs_that_are_no_floats_are_an_error():
    with pytest.raises(pxframe.PxframeError, match=r"inputs of torch\.int64 cannot be drawn"):
        pxframe.score(nn.Sequential(nn.Embedding(4, 3), nn.Linear(3, 2)), [(torch.arange(4), None)], scorer="ntk_sap")
