"""Indices of weights: where they point, when they are made, and how long they live."""

import gc
import weakref

import pytest
import torch
from torch import nn

import pxframe
from pxframe.scoring import products
from pxframe.scoring.net import Net
from pxframe.scoring.sweep import pieces, sweep


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
