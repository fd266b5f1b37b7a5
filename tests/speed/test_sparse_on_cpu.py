"""Which layers become sparse, with invented times; the network gives the same whatever is chosen."""

import copy
import logging
import re
from pathlib import Path

import pytest
import timm
import torch
from torch import nn

import pxframe
from pxframe.running.outputs import TOLERANCE
from pxframe.speed import cpu
from pxframe.speed.csr import CsrConv1x1, CsrLayer, CsrLinear, missing
from pxframe.speed.sparse import read_by, replaced

needs_csr = pytest.mark.skipif(bool(missing()), reason="this torch has no product of CSR matrices")


def fast(networks, x):
    """A clock by which CSR always wins."""
    return {"dense": (2.0, 2.0, 2.0), "csr": (1.0, 1.0, 1.0)}


def slow(networks, x):
    return {"dense": (1.0, 1.0, 1.0), "csr": (2.0, 2.0, 2.0)}


class Mixed(nn.Module):
    """Layers of all kinds; one runs twice under two names, one has its weight read without being run."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.point = nn.Conv2d(8, 12, 1, stride=2, bias=False)
        self.grouped = nn.Conv2d(12, 12, 1, groups=2)
        self.shared = self.again = nn.Linear(12, 12)
        self.read = nn.Linear(12, 12)
        self.full = nn.Linear(12, 6)
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        x = self.grouped(self.point(self.norm(self.stem(x)).relu())).mean((2, 3))
        x = self.again(self.shared(x).relu())
        return self.full(self.drop(nn.functional.linear(x, self.read.weight)))


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = Mixed()
    masks = {f"{n}.weight": torch.rand(m.weight.shape) < 0.3 for n, m in model.named_modules() if hasattr(m, "groups")}
    masks |= {f"{n}.weight": torch.rand(12, 12) < 0.3 for n in ("shared", "read")}
    pxframe.Ticket(masks).apply(model)
    return model


def difference(model, other, x):
    with torch.no_grad():
        wanted, found = model(x), other(x)
    return float((wanted - found).abs().max() / wanted.abs().max())


@needs_csr
def test_what_is_faster_is_chosen_layer_by_layer(model):
    asked = []

    def timing(networks, x):
        asked.append((type(networks["dense"]).__name__, type(networks["csr"]).__name__, tuple(x.shape)))
        won = len(asked) == 1
        return {"dense": (1.0, 3.0, 9.0), "csr": (1.0, 2.0 if won else 4.0, 9.0)}

    found = pxframe.sparse_on_cpu(model, torch.randn(5, 3, 16, 16), timing)
    assert asked == [("Conv2d", "CsrConv1x1", (5, 8, 8, 8)), ("Linear", "CsrLinear", (5, 12))]
    assert found.seconds == {"point": (3.0, 2.0), "shared": (3.0, 4.0)}
    assert found.sparse == {"point": "2e+03 ms in CSR form, 3e+03 ms as it is"}
    assert isinstance(found.model.point, CsrConv1x1)
    assert found.dense == {
        "stem": "its kernel is 3x3: only a 1x1 convolution is a matrix product",
        "grouped": "it has 2 groups",
        "shared": "4e+03 ms in CSR form, 3e+03 ms as it is",
        "read": "the network does not run it as a layer",
        "full": "no weight is zero",
    }
    assert found.model.shared is found.model.again
    assert type(found.model.shared) is nn.Linear


@needs_csr
def test_the_same_outputs_and_nothing_of_the_user_s_is_changed(model):
    x = torch.randn(5, 3, 16, 16)
    model.norm.eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes, state = [m.training for m in model.modules()], torch.get_rng_state()
    found = pxframe.sparse_on_cpu(model, x, fast)
    assert torch.equal(torch.get_rng_state(), state)
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(p.requires_grad for p in model.parameters())
    assert list(found.sparse) == ["point", "shared"]
    assert found.model.shared is found.model.again
    assert not any(m.training for m in found.model.modules())
    assert not any(p.requires_grad for p in found.model.parameters())
    model.eval()
    for other in (x, torch.randn(1, 3, 9, 7), torch.randn(32, 3, 16, 16)):
        assert difference(model, found.model, other) < TOLERANCE
    assert found.error < TOLERANCE


@needs_csr
def test_equal_times_leave_the_layer_as_it_is(model):
    found = pxframe.sparse_on_cpu(model, torch.randn(2, 3, 16, 16), slow)
    assert found.sparse == {}
    even = pxframe.sparse_on_cpu(model, torch.randn(2, 3, 16, 16), lambda *_: {"dense": (1.0,) * 3, "csr": (1.0,) * 3})
    assert even.sparse == {}


@needs_csr
@pytest.mark.parametrize("name", ["test_vit", "test_resnet", "test_convnext", "test_efficientnet"])
def test_real_models(name):
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=7).eval()
    x = torch.randn(2, 3, 160, 160) if name == "test_vit" else torch.randn(2, 3, 64, 64)
    pxframe.prune(model, [(x, None)], "random", 0.8).apply(model)
    found = pxframe.sparse_on_cpu(model, x, fast)
    assert len(found.sparse) > 2
    assert difference(model, found.model, torch.randn_like(x)) < TOLERANCE


@needs_csr
def test_a_module_that_is_itself_a_layer_and_a_slimmed_network():
    layer = nn.Linear(6, 4).requires_grad_(False)
    layer.weight[:, :5] = 0
    found = pxframe.sparse_on_cpu(layer, torch.randn(2, 6), fast)
    assert isinstance(found.model, CsrLinear)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4)).eval()
    masks = {"0.weight": torch.rand(8, 6) < 0.5, "2.weight": torch.rand(4, 8) < 0.5}
    masks["0.weight"][[2, 5]] = False
    small = pxframe.slim(model, pxframe.Ticket(masks), torch.randn(2, 6)).model
    found = pxframe.sparse_on_cpu(small, torch.randn(2, 6), fast)
    assert list(found.sparse) == ["0", "2"]
    assert found.model[0].inputs == 6
    assert len(found.model[0].starts) - 1 < 8


@needs_csr
def test_several_inputs_and_code_that_looks_at_the_weight():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(6, 6)

        def forward(self, x, shift):
            return self.a(input=x.to(self.a.weight.dtype)) + shift

    model = Two()
    nn.init.eye_(model.a.weight)
    x = {"x": torch.randn(3, 6, dtype=torch.float64), "shift": torch.randn(3, 6)}
    found = pxframe.sparse_on_cpu(model, x, lambda networks, given: fast(networks, given))
    assert list(found.sparse) == ["a"]


@needs_csr
def test_a_network_whose_code_does_not_know_the_layer():
    class Odd(nn.Sequential):
        def forward(self, x):
            return super().forward(x[:, : self[0].in_features])

    model = Odd(nn.Linear(6, 4), nn.Linear(4, 2))
    nn.init.zeros_(model[0].weight)
    with pytest.raises(pxframe.PxframeError) as told:
        pxframe.sparse_on_cpu(model, torch.randn(2, 6), fast)
    assert str(told.value).startswith("the network does not run with sparse layers (AttributeError: 'CsrLinear' object")
    assert "\n" not in str(told.value)


@needs_csr
def test_a_network_that_treats_the_layer_otherwise_is_not_given_to_the_user():
    class Odd(nn.Sequential):
        def forward(self, x):
            return super().forward(x) * (1 if type(self[0]) is nn.Linear else 2)

    model = Odd(nn.Linear(6, 4), nn.Linear(4, 2))
    nn.init.zeros_(model[0].weight)
    with pytest.raises(pxframe.PxframeError, match=r"^with sparse layers the network's outputs differ by 1\.0e\+00 of"):
        pxframe.sparse_on_cpu(model, torch.randn(2, 6), fast)


def test_a_torch_without_the_product_says_so(monkeypatch, caplog, model):
    reason = "this torch has no product of CSR matrices on the CPU, every layer stays as it is: no MKL"
    monkeypatch.setattr(cpu, "missing", lambda: reason)
    with caplog.at_level(logging.WARNING):
        found = pxframe.sparse_on_cpu(model, torch.randn(2, 3, 16, 16))
    assert [record.getMessage() for record in caplog.records] == [f"sparse_on_cpu: {reason}"]
    assert found.sparse == {}
    assert set(found.dense.values()) == {reason}
    assert not any(isinstance(m, CsrLayer) for m in found.model.modules())


def test_a_model_elsewhere_is_refused(model):
    with pytest.raises(pxframe.PxframeError, match=r"^sparse_on_cpu: the model is on meta; model\.cpu\(\) brings it"):
        pxframe.sparse_on_cpu(copy.deepcopy(model).to("meta"), torch.randn(2, 3, 16, 16))


def test_what_layers_read_is_noted_without_numbers(model):
    x = torch.randn(5, 3, 16, 16).to(memory_format=torch.channels_last)
    hooks = [len(m._forward_pre_hooks) for m in model.modules()]
    found = read_by(model.eval(), x)
    assert [len(m._forward_pre_hooks) for m in model.modules()] == hooks
    assert list(found) == ["stem", "point", "grouped", "shared", "full"]
    assert found["stem"].is_meta
    assert found["stem"].stride() == x.stride()
    drawn = cpu.drawn(found["stem"])
    assert drawn.stride() == x.stride()
    assert 0.9 < float(drawn.std()) < 1.1


def test_layers_are_replaced_under_all_their_names(model):
    other = nn.Identity()
    assert replaced(model, {model.shared: other}) is model
    assert model.shared is model.again is other
    assert replaced(model, {model: other}) is other


@needs_csr
def test_the_real_clock_decides_too(model):
    """Whatever it finds: every layer is in one of the two lists, with two times."""
    found = pxframe.sparse_on_cpu(model, torch.randn(2, 3, 16, 16))
    assert set(found.seconds) == {"point", "shared"}
    for name, (dense, csr) in found.seconds.items():
        assert (name in found.sparse) == (csr < dense)
        assert min(dense, csr) > 0


@pytest.mark.slow
@needs_csr
def test_the_guide(capsys):
    guide = (Path(__file__).parents[2] / "docs" / "sparse.md").read_text(encoding="utf-8")
    scope = {}
    exec(re.findall(r"```python\n(.*?)```", guide, re.DOTALL)[0], scope)
    layers = {**scope["fast"].sparse, **scope["fast"].dense}
    assert all(text.endswith("as it is") for name, text in layers.items() if name.startswith("blocks."))
    assert capsys.readouterr().out.count("in CSR form") == len(layers) - 1  # all but the patches' embedding
