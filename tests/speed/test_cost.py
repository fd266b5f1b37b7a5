"""Counts against numbers worked out by hand."""

import pytest
import torch
from torch import nn

from pxframe.speed import clock
from pxframe.speed.clock import take_times
from pxframe.speed.cost import count_cost, count_macs, peak
from pxframe.speed.csr import CsrConv1x1, CsrLinear, missing


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 25, 2)).eval()


def test_counts(model):
    with torch.no_grad():
        model[0].weight[1] = 0
        model[0].bias.fill_(1)
    cost = count_cost(model, torch.randn(2, 3, 5, 5))
    assert cost.parameters == 4 * 27 + 4 + 200 + 2
    assert cost.nonzero == cost.parameters - 27
    assert cost.macs == 25 * 4 * 27 + 200
    assert cost.disk > 4 * cost.parameters
    dense = count_cost(nn.Sequential(*(nn.Linear(100, 100) for _ in range(2))), torch.randn(1, 100))
    zeros = nn.Sequential(*(nn.Linear(100, 100) for _ in range(2)))
    nn.init.zeros_(zeros[0].weight)
    zeros = count_cost(zeros, torch.randn(1, 100))
    assert zeros.disk == dense.disk
    assert zeros.compressed < 0.6 * dense.compressed


@pytest.mark.parametrize("form", ["MultiheadAttention", "TransformerEncoderLayer", "scaled_dot_product_attention"])
def test_attention_is_counted_though_torch_runs_it_in_one_kernel(form):
    """Of 10 tokens in 4 heads of 16 numbers; a layer has its four projections, and two layers of 128 units."""

    class Attention(nn.MultiheadAttention):
        def forward(self, x):
            return super().forward(x, x, x, need_weights=False)

    class Alone(nn.Module):
        def forward(self, x):
            return nn.functional.scaled_dot_product_attention(*[x.unflatten(-1, (4, 16)).transpose(1, 2)] * 3)

    scores, projections, units = 2 * 4 * 10 * 10 * 16, 4 * 10 * 64 * 64, 2 * 10 * 64 * 128
    model, wanted = {
        "MultiheadAttention": (Attention(64, 4, batch_first=True), scores + projections),
        "TransformerEncoderLayer": (
            nn.TransformerEncoderLayer(64, 4, 128, batch_first=True),
            scores + projections + units,
        ),
        "scaled_dot_product_attention": (Alone(), scores),
    }[form]
    assert count_macs(model.eval(), torch.randn(2, 10, 64)) == wanted


def test_a_product_with_a_vector_is_counted():
    class Product(nn.Linear):
        def forward(self, x):
            return self.weight @ x[0] + torch.addmv(self.bias, self.weight, x[0])

    assert count_macs(Product(5, 7), torch.randn(1, 5)) == 2 * 35


def test_memory():
    """Of a chain of layers two values are there at a time: 3 x 8 and 3 x 6 numbers are the most."""
    chain = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 6), nn.Linear(6, 2))
    cost = count_cost(chain, torch.randn(3, 4))
    assert cost.memory == 4 * (cost.parameters + 3 * 8 + 3 * 6)


def test_memory_of_views_and_of_what_is_written_in_place_is_counted_once():
    x = torch.zeros(10)
    assert peak(lambda: (x + 1).view(2, 5).relu_().sum()) == 40 + 4


def test_networks_are_timed_in_turn(monkeypatch):
    """With a clock by which the first network takes 1, 2, 3, ... seconds, and the other 10 each time."""
    order = []

    def seconds(run, times, device):
        order.append(run())
        return float(order.count("a")) if order[-1] == "a" else 10.0

    monkeypatch.setattr(clock, "_seconds", seconds)
    monkeypatch.setattr(clock, "_times", lambda run, device: 1)
    found = take_times({"a": lambda x: "a", "b": lambda x: "b"}, torch.zeros(1), rounds=5)
    assert order == [*"ab", *"ba", *"ab", *"ba", *"ab"]
    assert found == {"a": (2.0, 3.0, 4.0), "b": (10.0, 10.0, 10.0)}


def test_quick_networks_run_several_times_in_a_measurement():
    calls = []
    take_times({"quick": lambda x: calls.append(1)}, torch.zeros(1), rounds=1)
    assert len(calls) > 100


@pytest.mark.skipif(bool(missing()), reason="this torch has no product of CSR matrices")
def test_a_layer_in_csr_form_counts_what_it_stores():
    """3 numbers of 4 x 6 are stored: with the column of each, and five starts of rows, in four bytes each."""
    layer = nn.Linear(6, 4).requires_grad_(False)
    layer.weight.zero_()
    layer.weight[[0, 1, 3], [2, 5, 0]] = 1.0
    sparse, x = CsrLinear(layer), torch.randn(5, 6)
    cost = count_cost(nn.Sequential(sparse), x)
    assert cost.parameters == cost.nonzero == 3 + 4
    assert cost.macs == 3
    assert cost.memory >= 4 * (3 + 4 + 3 + 5 + 5 * 4)
    point = nn.Conv2d(6, 4, 1)
    point.load_state_dict({"weight": layer.weight[:, :, None, None], "bias": layer.bias})
    assert count_cost(CsrConv1x1(point), torch.randn(2, 6, 3, 5)).macs == 15 * 3


def test_dense_products_count_as_before():
    """A product without a bias is another operation than one with it."""
    model = nn.Sequential(nn.Linear(6, 4, bias=False), nn.Linear(4, 3))
    assert count_cost(model, torch.randn(5, 6)).macs == 24 + 12
