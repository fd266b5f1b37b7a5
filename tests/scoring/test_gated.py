"""Channel scores against the gradient by a factor that really stands on each channel."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pxframe.base.errors import PxframeError
from pxframe.network.net import Net
from pxframe.plugin.registry import build


class FromLeft(nn.Module):
    """W @ x, a product whose weight is the left factor."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(5, 6))

    def forward(self, x):
        return (self.weight @ x.T).T


def linear_and_norm():
    norm = nn.BatchNorm1d(5)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return nn.Sequential(nn.Linear(6, 5), norm)


LAYERS = {"linear": lambda: nn.Linear(6, 5), "linear and norm": linear_and_norm, "from the left": FromLeft}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("layer", LAYERS)
def test_a_channel_s_score_is_the_gradient_by_a_factor_on_its_output(layer, training):
    torch.manual_seed(0)
    layer = LAYERS[layer]().double()
    model = nn.Sequential(layer, nn.ReLU(), nn.Linear(5, 3).double()).train(training)
    x, y = torch.randn(16, 6, dtype=torch.float64), torch.arange(16) % 3

    name = next(n for n, p in model.named_parameters() if p.shape == (5, 6))
    net = Net(model, {name: torch.ones(5, 6, dtype=torch.bool)})
    found = build("scorer", "snip").score_channels(net, [(x, y)])[name]

    factors = torch.ones(5, dtype=torch.float64, requires_grad=True)
    loss = F.cross_entropy(model[2](model[1](layer(x) * factors)), y)
    expected = torch.autograd.grad(loss, factors)[0].abs()
    assert expected.max() > 1e-3
    assert torch.allclose(found, expected)


@pytest.mark.parametrize("norms", [0, 1, 2])
def test_of_a_layer_that_runs_twice_the_factor_stands_behind_both_runs(norms):
    """Behind each of them a norm of its own, one for both, or none."""

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.last = nn.Linear(6, 5), nn.Linear(5, 3)
            self.norms = nn.ModuleList(nn.BatchNorm1d(5) for _ in range(norms))
            for norm in self.norms:
                nn.init.normal_(norm.weight)
                nn.init.normal_(norm.bias)

        def forward(self, x, factors=1.0):
            first, *_, second = [*self.norms, *self.norms] or [nn.Identity(), nn.Identity()]
            one, other = first(self.layer(x)) * factors, second(self.layer(x.flip(1))) * factors
            return self.last(one.relu() + other.tanh())

    torch.manual_seed(0)
    model = Twice().double().eval()
    x, y = torch.randn(16, 6, dtype=torch.float64), torch.arange(16) % 3
    net = Net(model, {"layer.weight": torch.ones(5, 6, dtype=torch.bool)})
    found = build("scorer", "snip").score_channels(net, [(x, y)])["layer.weight"]

    factors = torch.ones(5, dtype=torch.float64, requires_grad=True)
    expected = torch.autograd.grad(F.cross_entropy(model(x, factors), y), factors)[0].abs()
    assert expected.max() > 1e-3
    assert torch.allclose(found, expected)


@pytest.mark.parametrize("layer", [nn.Conv2d(2, 4, 1), nn.Linear(2, 4)])
def test_a_norm_without_parameters_is_refused_by_the_layer_s_name(layer):
    norm, shape = (nn.BatchNorm2d, (2, 3, 3)) if isinstance(layer, nn.Conv2d) else (nn.BatchNorm1d, (2,))
    model = nn.Sequential(layer, norm(4, affine=False), nn.Flatten(), nn.LazyLinear(2))
    x = torch.randn(4, *shape)
    model(x)
    net = Net(model, {"0.weight": torch.ones_like(layer.weight, dtype=torch.bool)})
    with pytest.raises(PxframeError, match=r"norm behind '0\.weight' has no parameters .* exclude '0\.weight'"):
        build("scorer", "snip").score_channels(net, [(x, torch.arange(4) % 2)])
