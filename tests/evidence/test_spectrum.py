"""Kernels and their spectra against an explicit Jacobian, built parameter by parameter with autograd."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

import pxframe
from pxframe.base.errors import PxframeError
from pxframe.evidence import kernel as kernels
from pxframe.evidence.spectrum import log_distance, ntk_spectrum


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.narrow, self.last = nn.Conv2d(8, 8, 3, groups=2, stride=2), nn.Linear(8, 3)
        self.norm.running_mean.uniform_(-1, 1)
        self.norm.running_var.uniform_(0.5, 2)

    def forward(self, x):
        x = self.narrow(self.norm(self.conv(x)).relu()).relu()
        return self.last(x.mean((2, 3)))


class Attends(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention, self.norm = nn.MultiheadAttention(4, 2, batch_first=True), nn.LayerNorm(4)

    def forward(self, x):
        x = x.flatten(2).mT[..., :2].repeat(1, 1, 2)
        return self.norm(self.attention(x, x, x, need_weights=False)[0]).mean(1)


@pytest.fixture(params=[Small, Attends])
def model(request):
    torch.manual_seed(0)
    return request.param().double()


@pytest.fixture
def batches():
    torch.manual_seed(1)
    return [(torch.randn(n, 2, 6, 6).double(), None) for n in (3, 2)]


def ticket_of(model, batches):
    return pxframe.prune(model, batches, scorer="magnitude", sparsity=0.5)


def explicit(model, batches, ticket, measured):
    """J J^T, one row of J for each output of each sample, by plain autograd on a pruned copy."""
    model = copy.deepcopy(model).eval()
    if ticket is not None:
        ticket.rewind(model)
    if measured and hasattr(model, "norm") and isinstance(model.norm, nn.BatchNorm2d):
        x = torch.cat([model.conv(x) for x, _ in batches])
        parts = [model.conv(x) for x, _ in batches]
        shares = torch.tensor([len(p) / len(x) for p in parts]).double()
        model.norm.running_mean = sum(s * p.mean((0, 2, 3)) for s, p in zip(shares, parts, strict=True)).detach()
        model.norm.running_var = sum(s * p.var((0, 2, 3)) for s, p in zip(shares, parts, strict=True)).detach()
    masks = {} if ticket is None else ticket.masks
    rows = []
    for x, _ in batches:
        for one in x.split(1):
            for output in model(one).flatten():
                found = torch.autograd.grad(output, list(model.parameters()), retain_graph=True)
                named = zip(model.named_parameters(), found, strict=True)
                rows.append(torch.cat([(g * masks.get(n, torch.tensor(1))).flatten() for (n, _), g in named]))
    jacobian = torch.stack(rows)
    return jacobian @ jacobian.T


@pytest.mark.parametrize("room", [1 << 27, 1000])
@pytest.mark.parametrize("pruned", [False, True])
def test_all_eigenvalues_are_those_of_the_explicit_kernel(model, batches, pruned, room, monkeypatch):
    monkeypatch.setattr(kernels, "_ENTRIES", room)
    monkeypatch.setattr(kernels, "_ROWS", 2)
    ticket = ticket_of(model, batches) if pruned else None
    before = copy.deepcopy(model.state_dict())
    found = ntk_spectrum(model, batches, ticket)
    wanted = explicit(model, batches, ticket, measured=True)
    values = np.linalg.eigvalsh(wanted.numpy())[::-1]
    np.testing.assert_allclose(found.eigenvalues, values, rtol=1e-6, atol=1e-9 * values[0])
    assert found.trace == pytest.approx(float(wanted.trace()), rel=1e-6)
    assert found.size == len(wanted)
    assert (found.trace_error, found.errors.max()) == (0, 0)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_rows_stand_in_the_order_of_samples_and_outputs(model, batches):
    net = pxframe.Net(model, {n: torch.ones_like(p, dtype=torch.bool) for n, p in model.named_parameters()})
    kernel = kernels.Kernel(net, batches)
    wanted = explicit(model, batches, None, measured=False)
    torch.testing.assert_close(kernel.matrix(), wanted, rtol=1e-9, atol=1e-12)
    vector = torch.randn(kernel.size, dtype=torch.float64)
    torch.testing.assert_close(kernel.times(vector), wanted @ vector, rtol=1e-9, atol=1e-10)


def test_the_largest_eigenvalues_and_their_bounds(model, batches):
    ticket = ticket_of(model, batches)
    values = np.linalg.eigvalsh(explicit(model, batches, ticket, measured=False).numpy())[::-1]
    found = ntk_spectrum(model, batches, ticket, largest=4, probes=400, measured=False)
    assert len(found.eigenvalues) == 4
    for value, bound in zip(found.eigenvalues, found.errors, strict=True):
        assert np.abs(values - value).min() <= bound + 1e-9 * values[0]
    np.testing.assert_allclose(found.eigenvalues, values[:4], rtol=1e-4)
    assert abs(found.trace - values.sum()) < 4 * found.trace_error
    assert 0 < found.trace_error < 0.2 * found.trace


def test_starting_values_of_a_ticket_are_in_place(model, batches):
    plain = ticket_of(model, batches)
    refitted = pxframe.refit(model, plain, batches, "obs")
    found = ntk_spectrum(model, batches, refitted, measured=False)
    values = np.linalg.eigvalsh(explicit(model, batches, refitted, measured=False).numpy())[::-1]
    np.testing.assert_allclose(found.eigenvalues, values, rtol=1e-6, atol=1e-9 * values[0])


def test_distance_is_a_mean_of_powers_of_ten():
    assert log_distance([100.0, 10.0, 1.0], [10.0, 10.0, 0.1]) == pytest.approx(2 / 3)
    assert log_distance([100.0, 1e-9], [100.0, 1.0]) == 0  # below what float32 can tell
    assert log_distance([0.0], [1.0]) is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(largest=0), "'largest'"),
        (dict(probes=1), "'probes'"),
        (dict(largest=1000), "leave 'largest' out"),
        (dict(batches=[]), "needs images"),
    ],
)
def test_mistakes_cost_one_line(model, batches, options, words):
    with pytest.raises(PxframeError, match=words):
        ntk_spectrum(**{"model": model, "batches": batches, **options})


def test_a_kernel_too_large_for_its_matrix_is_refused_before_it_is_made(model, monkeypatch):
    monkeypatch.setattr(kernels.Kernel, "matrix", lambda self: pytest.fail("it was made"))
    with pytest.raises(PxframeError, match="rows, and the whole matrix is made of up to 4096"):
        ntk_spectrum(model, [(torch.zeros(2000, 2, 6, 6).double(), None)])


def test_parameters_that_take_no_gradients_are_no_part_of_it(model, batches):
    whole = ntk_spectrum(model, batches, measured=False).trace
    first, *_ = model.parameters()
    first.requires_grad_(False)
    part = ntk_spectrum(model, batches, measured=False).trace
    first.requires_grad_()
    gradients = [
        torch.autograd.grad(out, first, retain_graph=True)[0]
        for x, _ in batches
        for one in x.split(1)
        for out in model.eval()(one).flatten()
    ]
    assert whole - part == pytest.approx(sum(float(g.square().sum()) for g in gradients), rel=1e-6)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    with pytest.raises(PxframeError, match="takes gradients"):
        ntk_spectrum(model, batches)


def test_a_ticket_of_a_part_is_refused_and_the_caller_s_mode_does_not_matter(model, batches):
    ticket = ticket_of(model, batches)
    with pytest.raises(PxframeError, match="pass the module that it was made from"):
        ntk_spectrum(nn.Sequential(model), batches, ticket)
    plain = ntk_spectrum(model, batches, ticket).trace
    with torch.inference_mode():
        assert ntk_spectrum(model, batches, ticket).trace == plain
