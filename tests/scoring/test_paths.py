"""Path quantities against an enumeration of all paths (``oracle``), in float64 on tiny networks."""

import pytest
import torch
from cases import CHECKS, make_case
from torch import nn

import pxframe


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.inner, self.last = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 2)

    def forward(self, x):
        x = torch.relu(self.first(x))
        return self.last(torch.relu(x + self.inner(x)))


def mlp():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))

    def build(net, w):
        x = net.inputs(3)
        x = net.relu(net.linear(x, "0.weight", 4, w["0.bias"]))
        x = net.relu(net.linear(x, "2.weight", 3, w["2.bias"]))
        return net.linear(x, "4.weight", 2, w["4.bias"])

    return model, (3,), build


def residual():
    def build(net, w):
        x = net.relu(net.linear(net.inputs(3), "first.weight", 3, w["first.bias"]))
        x = net.relu(net.plus(x, net.linear(x, "inner.weight", 3, w["inner.bias"])))
        return net.linear(x, "last.weight", 2, w["last.bias"])

    return Residual(), (3,), build


def cnn(kind):
    pool = nn.MaxPool2d(2) if kind == "max" else nn.AvgPool2d(2)
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3, stride=2, padding=1),
        nn.ReLU(),
        pool,
        nn.Conv2d(2, 2, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8, 2),
    )

    def build(net, w):
        x, shape = net.conv(net.inputs(64), (1, 8, 8), "0.weight", 2, 3, stride=2, pad=1, bias=w["0.bias"])
        x, shape = net.pool(net.relu(x), shape, 2, kind)
        x, shape = net.conv(x, shape, "3.weight", 2, 3, pad=1, bias=w["3.bias"])
        return net.linear(net.relu(x), "6.weight", 2, w["6.bias"])

    return model, (1, 8, 8), build


def batch_normed():
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1, bias=False),
        nn.BatchNorm2d(2),
        nn.ReLU(),
        nn.Conv2d(2, 2, 3, stride=2, bias=False),
        nn.BatchNorm2d(2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(2, 2),
    )
    for bn in (model[1], model[4]):
        nn.init.normal_(bn.weight)
        nn.init.normal_(bn.bias)
        nn.init.normal_(bn.running_mean)
        nn.init.uniform_(bn.running_var, 0.5, 2.0)

    def bn(net, x, shape, w, at):
        names = ("weight", "bias", "running_mean", "running_var")
        return net.batch_norm(x, shape, *(w[f"{at}.{n}"] for n in names), eps=1e-5)

    def build(net, w):
        x, shape = net.conv(net.inputs(16), (1, 4, 4), "0.weight", 2, 3, pad=1)
        x = net.relu(bn(net, x, shape, w, 1))
        x, shape = net.conv(x, shape, "3.weight", 2, 3, stride=2)
        x = net.relu(bn(net, x, shape, w, 4))
        return net.linear(x, "7.weight", 2, w["7.bias"])

    return model, (1, 4, 4), build


CASES = {
    "mlp": mlp,
    "residual": residual,
    "cnn_max": lambda: cnn("max"),
    "cnn_avg": lambda: cnn("avg"),
    "batch_norm": batch_normed,
}


@pytest.fixture(params=[(case, masked) for case in CASES for masked in (False, True)], ids=str, scope="module")
def case(request):
    name, masked = request.param
    torch.manual_seed(len(name))
    return make_case(*CASES[name](), masked)


@pytest.mark.parametrize("check", CHECKS)
def test_path_quantities_equal_the_enumeration(case, check):
    CHECKS[check](case)


@pytest.mark.parametrize("scale", [1e-5, 1.0, 1e5])
def test_joint_scores_add_up_over_batches_whose_path_values_differ_in_range(scale):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 16, 3)).double()
    one, other = torch.randn(5, 3, 6, 6, dtype=torch.float64), torch.randn(3, 3, 6, 6, dtype=torch.float64) * scale
    joint = dict(type="px", variant="joint")
    alone = [pxframe.score(model, [(x, None)], joint) for x in (one, other)]
    for order in ([one, other], [other, one]):
        together = pxframe.score(model, [(x, None) for x in order], joint)
        for name, score in together.items():
            assert torch.allclose(score, alone[0][name] + alone[1][name], rtol=1e-10)
