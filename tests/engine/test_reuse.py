"""Working in place: the same numbers, and nothing of the user's written over; rounds that never wait for the device."""

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

import pxframe
from pxframe.engine.interpret import interpret, squared_input
from pxframe.engine.reading import Reading, path_weights
from pxframe.network.net import Net
from pxframe.scoring.paths import f_tensors


class Aliased(nn.Module):
    """Every value that relu or + could write over is read again later, some through a view."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.bn, self.fc = nn.BatchNorm2d(4), nn.Linear(4, 3)

    def forward(self, x):
        first = self.a(F.relu(x))
        view = first.flatten(2)
        y = F.relu(first)
        z = self.bn(self.b(y))
        total = z + y
        again = F.relu(total) + total + z.transpose(2, 3)
        again = again + view.view_as(again) + again[:, :1].expand_as(again)
        return self.fc(F.relu(again + first.mean((2, 3), keepdim=True)).mean((2, 3)))


class Shifted(nn.Module):
    """Sums of two views of the same values: neither may be written over."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.fc = nn.Linear(4, 3)

    def forward(self, x):
        y = self.conv(x)
        y = F.relu(y[..., 1:] + y[..., :-1])
        y = y[..., 1:, :]
        return self.fc(F.relu(y + y.transpose(2, 3)).mean((2, 3)))


MODELS = {
    "shifted": Shifted,
    "aliased": Aliased,
    "resnet20": lambda: pxframe.build_backbone(dict(type="cifar_resnet", depth=20)),
    "resnet18": lambda: torchvision.models.resnet18(),
    "densenet": lambda: torchvision.models.DenseNet(4, (2, 2), 8),
}


@pytest.fixture(params=MODELS)
def net(request):
    torch.manual_seed(0)
    model = MODELS[request.param]().double().eval()
    x = torch.randn(2, 2 if request.param == "aliased" else 3, 32, 32, dtype=torch.float64)
    net = Net(model, {n: torch.rand(p.shape) < 0.8 for n, p in model.named_parameters() if p.ndim > 1})
    return net, x


def test_in_place_and_not_give_the_same_and_the_input_is_left_alone(net):
    net, x = net
    before = x.clone()
    trace = net.trace(x)
    assert trace.reuse  # there is something to get wrong
    reading = Reading(path_weights(net.parameters, net.masks, 0), 0, replay=True)

    def run():
        return interpret(trace, f_tensors(net), x, [(reading, squared_input(x, x.dtype))])

    with torch.enable_grad():  # nothing is written over where a gradient may need it
        plain = run()
    with torch.no_grad():
        reused = run()
    assert torch.equal(x, before)
    assert torch.allclose(plain.outputs[0], reused.outputs[0], rtol=1e-12)
    assert torch.allclose(reused.outputs[0], net(x), rtol=1e-9)
    one, other = plain.paths[0][0], reused.paths[0][0]
    assert torch.allclose(one.mantissa * 2.0**one.exponent, other.mantissa * 2.0**other.exponent, rtol=1e-12)


def test_a_model_is_traced_once_a_prune(monkeypatch):
    from pxframe.network import traces as module

    calls = []
    trace = module.trace_model
    monkeypatch.setattr(module, "trace_model", lambda model, x: calls.append(tuple(x.shape)) or trace(model, x))
    model = pxframe.build_backbone(dict(type="cifar_resnet", depth=8))
    pxframe.prune(model, [(torch.randn(4, 3, 8, 8), None)], sparsity=0.5, rounds=6)
    assert sorted(calls) == [(1, 3, 8, 8), (4, 3, 8, 8)]  # f and g on the batch, h on one input
