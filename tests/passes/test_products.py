"""Indices of weights: where they point, when they are made, and how long they live."""

import gc
import weakref

import pytest
import torch
from torch import nn

import pxframe
from pxframe.base.errors import PxframeError
from pxframe.network.net import Net
from pxframe.passes import products
from pxframe.passes import sweep as sweep_module
from pxframe.passes.sweep import pieces, sweep


class Mixed(nn.Sequential):
    """Convolutions, plain, grouped and transposed, and a linear layer."""

    def __init__(self):
        super().__init__(
            *(nn.Conv2d(2, 4, 3, bias=False), nn.Conv2d(4, 6, 3, groups=2, bias=False)),
            *(nn.ConvTranspose2d(6, 4, 2, groups=2, bias=False), nn.Flatten(), nn.Linear(36, 5, bias=False)),
        )


@pytest.fixture
def net():
    torch.manual_seed(0)
    model = Mixed().eval()
    return Net(model, {n: torch.ones_like(p, dtype=torch.bool) for n, p in model.named_parameters() if p.ndim > 1})


@pytest.fixture
def made(monkeypatch):
    """The nodes whose index has been made, in order."""
    seen, plain = [], products._index
    monkeypatch.setattr(products, "_index", lambda used, *rest: seen.append(used) or plain(used, *rest))
    return seen


def data(number=3):
    return [(torch.randn(4, 2, 6, 6), None) for _ in range(number)]


def test_a_product_gives_the_layer_s_outputs_and_knows_its_shape(net):
    [(x, _)] = data(1)
    found = {product.name: (product, columns) for product, columns in net.layer_inputs([(x, None)])}
    for path, layer in net._model.named_children():
        output = layer(x)
        if path != "3":
            product, columns = found.pop(f"{path}.weight")
            assert product.index.shape == product.shape
            own = (net.weights[product.name].flatten()[product.index] @ columns).flatten(0, 1)  # [out, positions]
            torch.testing.assert_close(own, output.detach().transpose(0, 1).flatten(1))
        x = output
    assert not found


def test_looking_for_layers_makes_no_index(net, made):
    pieces(net, data(1)[0][0])
    list(net.layer_inputs(data()))
    assert not made


@pytest.mark.parametrize(
    "options", [dict(scorer="wanda"), dict(scorer="sparsegpt"), dict(scorer="random", refit="obs")]
)
def test_methods_make_one_for_each_layer(net, made, options):
    pxframe.prune(net._model, data(), sparsity=0.5, **options)
    assert len(made) == len(set(made)) == len(net.weights)


def test_the_index_of_a_layer_is_gone_when_the_next_one_is_there(net):
    alive = []
    for product, _ in sweep(net, [data(1)[0][0]], [{**net.buffers, **net.parameters}]):
        alive.append(weakref.ref(product.index))
        gc.collect()
        assert [ref() is not None for ref in alive] == [False] * (len(alive) - 1) + [True]
    assert len(alive) == len(net.weights)


class AloneOtherwise(nn.Module):
    """Image by image, it has one graph for one image, and another for several."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 4)

    def forward(self, x):
        x = torch.relu(self.first(x))
        return self.second(x.T.contiguous().T if len(x) == 1 else x)


@pytest.mark.parametrize("options", [dict(scorer="sparsegpt"), dict(scorer="magnitude", refit="obs")], ids=str)
def test_one_sample_beside_larger_batches_gives_what_one_batch_gives(options):
    torch.manual_seed(0)
    model, x = AloneOtherwise().double(), torch.randn(9, 6).double()
    whole = pxframe.prune(model, [(x, None)], sparsity=0.5, **options)
    parts = pxframe.prune(model, [(x[:8], None), (x[8:], None)], sparsity=0.5, **options)
    assert whole.start.keys() == parts.start.keys() >= {"first.weight", "second.weight"}
    for name, value in whole.start.items():
        torch.testing.assert_close(parts.start[name], value)


class Sides(nn.Module):
    """Of one sample the weight stands on the left, of several on the right."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(5, 3))

    def forward(self, x):  # [batch, 3]
        return torch.mm(self.weight, x.T).T if len(x) == 1 else torch.mm(x, self.weight.T)


def test_values_laid_out_in_another_way_give_the_same_columns():
    torch.manual_seed(0)
    model, x = Sides(), torch.randn(4, 3)
    net = Net(model, {"weight": torch.ones(5, 3, dtype=torch.bool)})
    [(product, [values])] = sweep(net, [x[:3], x[3:]], [net.parameters])
    torch.testing.assert_close(torch.cat([product.columns(value) for value in values], 2), x.T[None])


def test_batches_with_other_layers_are_refused():
    class Skips(AloneOtherwise):
        def forward(self, x):
            x = torch.relu(self.first(x))
            return self.second(x) if len(x) > 1 else x[:, :4]

    torch.manual_seed(0)
    x = torch.randn(3, 6)
    with pytest.raises(PxframeError, match=r"second\.weight is used in another way, or at another place, for some"):
        pxframe.prune(Skips(), [(x[:2], None), (x[2:], None)], "sparsegpt", sparsity=0.5)


@pytest.mark.parametrize(
    ("number", "most", "sizes"), [(9, 8, [5, 4]), (7, 3, [3, 2, 2]), (5, 2, [2, 2, 1]), (3, 9, [3])]
)
def test_parts_are_even(monkeypatch, number, most, sizes):
    net = Net(nn.Linear(6, 4), {"weight": torch.ones(4, 6, dtype=torch.bool)})
    monkeypatch.setattr(sweep_module, "_MOST", most * 6)
    assert [len(part) for part in pieces(net, torch.randn(number, 6))] == sizes
