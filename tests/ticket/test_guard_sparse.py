"""A guarded network is trained as the sparse network: compared with networks that lack the pruned weights."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from pxframe.ticket.ticket import Ticket

WIDTHS = (12, 20, 6)


class Lars(torch.optim.Optimizer):
    """Layer-wise adaptive rates (You et al. 2017, Algorithm 1) without momentum."""

    def __init__(self, params, lr=0.1, decay=0.01):
        super().__init__(params, {"lr": lr, "decay": decay})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                rate = p.norm() / (p.grad.norm() + group["decay"] * p.norm() + 1e-12)
                p -= group["lr"] * rate * (p.grad + group["decay"] * p)


class Compact(nn.Module):
    """A linear layer whose parameter is the list of the kept weights alone."""

    def __init__(self, weight, mask):
        super().__init__()
        self.mask = mask
        self.values = nn.Parameter(weight.detach()[mask].clone())

    def forward(self, x):
        return x @ torch.zeros(self.mask.shape).masked_scatter(self.mask, self.values).t()


class Product(nn.Module):
    def __init__(self, mask):
        super().__init__()
        self.register_buffer("mask", mask.float())

    def forward(self, weight):
        return weight * self.mask


def make(masks):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(WIDTHS[0], WIDTHS[1], bias=False), nn.ReLU(), nn.Linear(WIDTHS[1], WIDTHS[2], bias=False)
    )
    ticket = Ticket(masks)
    ticket.apply(model)
    return model, ticket


def scattered():
    generator = torch.Generator().manual_seed(1)
    shapes = {"0.weight": (WIDTHS[1], WIDTHS[0]), "2.weight": (WIDTHS[2], WIDTHS[1])}
    return {name: torch.rand(shape, generator=generator) < 0.3 for name, shape in shapes.items()}


def structured():
    """Half of the hidden units: rows of the first matrix and columns of the second; half of the columns and rows."""
    first, second = torch.zeros(WIDTHS[1], WIDTHS[0]).bool(), torch.zeros(WIDTHS[2], WIDTHS[1]).bool()
    first[::2, ::2] = True
    second[::2, ::2] = True
    return {"0.weight": first, "2.weight": second}


def train(model, optimizer, clip=0.0, steps=20, inputs=slice(None), outputs=slice(None)):
    generator = torch.Generator().manual_seed(3)
    for _ in range(steps):
        x, y = torch.randn(16, WIDTHS[0], generator=generator), torch.randn(16, WIDTHS[2], generator=generator)
        optimizer.zero_grad()
        F.mse_loss(model(x[:, inputs]), y[:, outputs], reduction="sum").backward()
        if clip:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()


ELEMENTWISE = {
    "sgd with momentum": (lambda p: torch.optim.SGD(p, lr=1e-3, momentum=0.9, weight_decay=0.01), 0),
    "adamw": (lambda p: torch.optim.AdamW(p, lr=0.01), 0),
    "clipping and sgd": (lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9), 0.5),
    "lars": (lambda p: Lars(p), 0),
    "centered rmsprop": (lambda p: torch.optim.RMSprop(p, lr=1e-3, momentum=0.5, centered=True), 0),
}


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_as_a_network_whose_parameters_are_the_kept_weights_alone(name):
    factory, clip = ELEMENTWISE[name]
    model, ticket = make(scattered())
    compact = nn.Sequential(
        Compact(model[0].weight, ticket.masks["0.weight"]),
        nn.ReLU(),
        Compact(model[2].weight, ticket.masks["2.weight"]),
    )
    before = compact[0].values.detach().clone()
    optimizer = factory(model.parameters())
    ticket.guard(optimizer, model)
    train(model, optimizer, clip)
    train(compact, factory(compact.parameters()), clip)
    for place in (0, 2):
        mask = ticket.masks[f"{place}.weight"]
        assert (model[place].weight[~mask] == 0).all()
        torch.testing.assert_close(model[place].weight[mask], compact[place].values, rtol=1e-4, atol=1e-5)
    assert (compact[0].values - before).abs().max() > 1e-2, "both moved"


def test_lbfgs_as_the_compact_network():
    model, ticket = make(scattered())
    compact = nn.Sequential(
        Compact(model[0].weight, ticket.masks["0.weight"]),
        nn.ReLU(),
        Compact(model[2].weight, ticket.masks["2.weight"]),
    )
    x, y = torch.randn(16, WIDTHS[0]).double(), torch.randn(16, WIDTHS[2]).double()
    weights = []
    for net in (model, compact):
        net.double()
        optimizer = torch.optim.LBFGS(net.parameters(), lr=0.1, max_iter=4)
        if net is model:
            ticket.guard(optimizer, model)

        def closure(net=net, optimizer=optimizer):
            optimizer.zero_grad()
            loss = F.mse_loss(forward(net, x), y)
            loss.backward()
            return loss

        for _ in range(3):
            optimizer.step(closure)
        weights.append(net)
    mask = ticket.masks["0.weight"]
    assert (model[0].weight[~mask] == 0).all()
    torch.testing.assert_close(model[0].weight[mask], compact[0].values, rtol=1e-6, atol=1e-8)


def forward(net, x):
    """The output of either network in float64."""
    for layer in net:
        if isinstance(layer, Compact):
            weight = torch.zeros(layer.mask.shape, dtype=x.dtype).masked_scatter(layer.mask, layer.values)
            x = x @ weight.t()
        else:
            x = layer(x)
    return x


MATRIX = {"adafactor": lambda p: torch.optim.Adafactor(p, lr=0.05)}
if hasattr(torch.optim, "Muon"):  # since torch 2.9
    MATRIX["muon"] = lambda p: torch.optim.Muon(p, lr=0.02, weight_decay=0.0)


@pytest.mark.parametrize("name", MATRIX)
def test_matrix_updates_as_a_network_that_computes_with_weight_times_mask(name):
    """Muon's own changes to the pruned entries have no effect there, since the product hides them."""
    model, ticket = make(scattered())
    product = copy.deepcopy(model)
    for place in (0, 2):
        parametrize.register_parametrization(product[place], "weight", Product(ticket.masks[f"{place}.weight"]))
    optimizer = MATRIX[name](model.parameters())
    ticket.guard(optimizer, model)
    train(model, optimizer)
    train(product, MATRIX[name](product.parameters()))
    for place in (0, 2):
        mask = ticket.masks[f"{place}.weight"]
        assert (model[place].weight[~mask] == 0).all()
        assert model[place].weight[mask].equal(product[place].weight[mask])


def smaller(model):
    """The network of the matrices that are left of :func:`structured`."""
    left = nn.Sequential(
        nn.Linear(WIDTHS[0] // 2, WIDTHS[1] // 2, bias=False),
        nn.ReLU(),
        nn.Linear(WIDTHS[1] // 2, WIDTHS[2] // 2, bias=False),
    )
    with torch.no_grad():
        for place in (0, 2):
            left[place].weight.copy_(model[place].weight[::2, ::2])
    return left


class EverySecond(nn.Module):
    """The kept inputs and outputs of the guarded network, so that both networks have the same loss."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(torch.zeros(len(x), WIDTHS[0]).index_copy(1, torch.arange(0, WIDTHS[0], 2), x))[:, ::2]


@pytest.mark.skipif("muon" not in MATRIX, reason="torch.optim.Muon is new in torch 2.9")
def test_muon_with_whole_rows_and_columns_pruned_as_the_smaller_matrix():
    model, ticket = make(structured())
    left = smaller(model)
    optimizer = MATRIX["muon"](model.parameters())  # both sides are halved: the same factor for the shape
    ticket.guard(optimizer, model)
    train(EverySecond(model), optimizer, inputs=slice(0, None, 2), outputs=slice(0, None, 2))
    train(left, MATRIX["muon"](left.parameters()), inputs=slice(0, None, 2), outputs=slice(0, None, 2))
    for place in (0, 2):
        # Muon computes in bfloat16: 8 bits.
        torch.testing.assert_close(model[place].weight[::2, ::2], left[place].weight, rtol=0.02, atol=0.01)


def test_adafactor_with_whole_rows_and_columns_pruned_as_the_smaller_matrix_at_its_learning_rate():
    model, ticket = make(structured())
    left = smaller(model)
    density = 0.25  # the steps of the guarded matrix are smaller by its root; d and eps switch other effects off

    def adafactor(parameters, lr):
        return torch.optim.Adafactor(parameters, lr=lr, d=1e9, eps=(1e-30, 1e-12))

    optimizer = adafactor(model.parameters(), 0.01 / density**0.5)
    ticket.guard(optimizer, model)
    train(EverySecond(model), optimizer, inputs=slice(0, None, 2), outputs=slice(0, None, 2))
    train(left, adafactor(left.parameters(), 0.01), inputs=slice(0, None, 2), outputs=slice(0, None, 2))
    for place in (0, 2):
        torch.testing.assert_close(model[place].weight[::2, ::2], left[place].weight, rtol=1e-4, atol=1e-5)
