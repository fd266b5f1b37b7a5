"""Refitted weights against ``lstsq``, for every way a layer multiplies by its weight."""

import pytest
import torch
from torch import nn

import pxframe
from pxframe.refits.least_squares import LeastSquares


def exact(inputs, targets, mask):
    """min ||targets - v inputs||, v zero where the mask is, row by row; inputs [columns, positions]."""
    values = torch.zeros(mask.shape, dtype=torch.float64)
    for row, (target, kept) in enumerate(zip(targets, mask, strict=True)):
        values[row, kept] = torch.linalg.lstsq(inputs[kept].T, target.unsqueeze(-1), driver="gelsd").solution[:, 0]
    return values


@pytest.mark.parametrize("sequential", [True, False])
def test_the_weights_are_those_of_lstsq(sequential):
    torch.manual_seed(0)
    dense, mask = torch.randn(2, 5, 7, dtype=torch.float64), torch.rand(2, 5, 7) < 0.5
    x, z = torch.randn(2, 7, 60, dtype=torch.float64), torch.randn(2, 7, 60, dtype=torch.float64)
    z = x + 0.3 * z if sequential else x
    problem = LeastSquares(dense)
    for part in range(3):
        some = slice(20 * part, 20 * part + 20)
        problem.add(z[..., some], x[..., some] if sequential else None)
    found = problem.solve(dense * mask, mask, damping=1e-12, steps=100)
    for group in range(2):
        expected = exact(z[group], dense[group] @ x[group], mask[group])
        torch.testing.assert_close(found[group], expected, rtol=1e-6, atol=1e-8)


def test_rows_that_the_damping_would_make_worse_stay_as_they_are():
    torch.manual_seed(0)
    dense, x = torch.randn(1, 3, 4), torch.randn(1, 4, 30)
    mask = torch.tensor([True, True, True, False]).expand(1, 3, 4)
    problem = LeastSquares(dense)
    problem.add(x)
    best = problem.solve(dense * mask, mask, damping=1e-12, steps=50)
    again = problem.solve(best, mask, damping=10.0, steps=50)
    assert (problem.error(again, mask) <= problem.error(best, mask)).all()
    torch.testing.assert_close(again, best)


class Layers(nn.Module):
    """A layer whose output is the model's."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        out = self.layer(x)
        return out if isinstance(out, torch.Tensor) else out[0]


class Projected(nn.Module):
    """x @ w, and w @ x."""

    def __init__(self, right):
        super().__init__()
        self.right, self.weight = right, nn.Parameter(torch.randn(6, 4) if right else torch.randn(4, 6))

    def forward(self, x):
        return x @ self.weight if self.right else self.weight @ x


LAYERS = {
    "linear": (lambda: nn.Linear(6, 4), (50, 6)),
    "linear on tokens": (lambda: nn.Linear(6, 4), (20, 5, 6)),
    "plain": (lambda: nn.Conv2d(3, 4, 3), (20, 3, 6, 6)),
    "grouped": (lambda: nn.Conv2d(4, 6, 3, groups=2, padding=1), (20, 4, 6, 6)),
    "depthwise": (lambda: nn.Conv2d(4, 4, 3, groups=4, stride=2), (20, 4, 7, 7)),
    "strided, dilated, padded": (lambda: nn.Conv2d(3, 4, (3, 2), (2, 1), (1, 2), (2, 1)), (20, 3, 8, 7)),
    "reflecting": (lambda: nn.Conv2d(3, 4, 3, padding=2, padding_mode="reflect"), (20, 3, 6, 6)),
    "same": (lambda: nn.Conv2d(3, 4, 4, padding="same"), (20, 3, 6, 6)),
    "one dimension": (lambda: nn.Conv1d(3, 4, 3, stride=2, padding=1), (40, 3, 9)),
    "three dimensions": (lambda: nn.Conv3d(2, 3, 2), (20, 2, 4, 4, 4)),
    "transposed": (lambda: nn.ConvTranspose2d(4, 3, 3, stride=2, padding=1, output_padding=1), (20, 4, 5, 5)),
    "transposed, grouped": (lambda: nn.ConvTranspose2d(4, 6, 2, groups=2, dilation=2), (20, 4, 5, 5)),
    "x @ weight": (lambda: Projected(True), (20, 5, 6)),
    "weight @ x": (lambda: Projected(False), (20, 6, 5)),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_a_layer_of_every_kind_comes_as_close_as_it_can(kind):
    """The oracle knows nothing of columns: it gets the matrix of the layer from its outputs on unit weights."""
    torch.manual_seed(0)
    build, shape = LAYERS[kind]
    model, x = Layers(build()).double().eval(), torch.randn(shape, dtype=torch.float64)
    refit = dict(type="obs", damping=1e-10, steps=300)
    options = dict(scorer="random", sparsity=0.6, scope="layer", refit=refit)
    ticket = pxframe.prune(model, [(x[:7], None), (x[7:], None)], **options)
    [(name, mask)] = ticket.masks.items()
    weight = dict(model.named_parameters())[name]
    with torch.no_grad():
        target, own = model(x), weight.clone()
        weight.zero_()
        constant = model(x)
        columns = []
        for position in mask.flatten().nonzero()[:, 0].tolist():
            weight.view(-1)[position] = 1
            columns.append((model(x) - constant).flatten())
            weight.view(-1)[position] = 0
        solution = torch.linalg.lstsq(torch.stack(columns, 1), (target - constant).flatten()[:, None]).solution[:, 0]
        weight.copy_(own)
    expected = torch.zeros_like(weight).masked_scatter(mask, solution)
    torch.testing.assert_close(ticket.start[name], expected.detach(), rtol=1e-5, atol=1e-7)
