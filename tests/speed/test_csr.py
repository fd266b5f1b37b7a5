"""Layers in CSR form give what the dense layers give."""

import copy
import io
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load, save
from torch import nn

import pxframe
from pxframe.speed.csr import CsrConv1x1, CsrLinear, missing, why_not

pytestmark = pytest.mark.skipif(bool(missing()), reason="this torch has no product of CSR matrices")


@pytest.fixture(params=[1, 2])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


def thin(layer, density=0.2):
    torch.manual_seed(0)
    with torch.no_grad():
        layer.weight.mul_(torch.rand(layer.weight.shape) < density)
    return layer.requires_grad_(False)


def assert_same(layer, sparse, x):
    """Values against float64, layout against the dense layer."""
    wanted, found = layer(x), sparse(x)
    exact = copy.deepcopy(layer).double()(x.double())
    assert found.shape == wanted.shape
    assert found.dtype == wanted.dtype
    assert found.is_contiguous()
    if found.numel():
        assert (found - exact).abs().max() <= 1e-6 * exact.abs().max()


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("batch", [0, 1, 32])
def test_linear(batch, bias):
    layer = thin(nn.Linear(70, 41, bias=bias))
    sparse = CsrLinear(layer)
    assert len(sparse.values) == layer.weight.count_nonzero()
    assert torch.equal(sparse.weight, layer.weight)
    for x in (torch.randn(batch, 70), torch.randn(batch, 19, 70), torch.randn(batch, 3, 2, 70)):
        assert_same(layer, sparse, x)
    assert_same(layer, sparse, torch.randn(70))


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("stride", [1, 2, (3, 1)])
@pytest.mark.parametrize("batch", [0, 1, 32])
def test_convolution(batch, stride, bias):
    layer = thin(nn.Conv2d(30, 17, 1, stride=stride, bias=bias))
    sparse = CsrConv1x1(layer)
    assert len(sparse.values) == layer.weight.count_nonzero()
    assert_same(layer, sparse, torch.randn(batch, 30, 7, 5))
    assert_same(layer, sparse, torch.randn(30, 7, 5))


@pytest.mark.usefixtures("threads")
def test_inputs_that_do_not_lie_in_order():
    linear, convolution = thin(nn.Linear(30, 17)), thin(nn.Conv2d(30, 17, 1, stride=2))
    x = torch.randn(4, 30, 9, 11)
    for other in (x.to(memory_format=torch.channels_last), x.transpose(2, 3), x[:, :, ::2, 1:], x.expand(4, 30, 9, 11)):
        assert_same(convolution, CsrConv1x1(convolution), other)
    for other in (x.permute(0, 2, 3, 1), x.flatten(2).transpose(1, 2), x[:, :, 3].transpose(1, 2)[::2]):
        assert not other.is_contiguous()
        assert_same(linear, CsrLinear(linear), other)


@pytest.mark.parametrize("kept", ["nothing", "one row", "everything"])
def test_extreme_weights(kept):
    layer = nn.Linear(12, 8).requires_grad_(False)
    if kept != "everything":
        layer.weight[1 if kept == "one row" else 0 :] = 0
    assert_same(layer, CsrLinear(layer), torch.randn(3, 12))


def test_double_precision():
    layer, x = thin(nn.Linear(70, 41).double()), torch.randn(3, 70, dtype=torch.float64)
    assert (CsrLinear(layer)(x) - layer(x)).abs().max() < 1e-13


def test_autocast_is_refused_in_one_line():
    layer, x = CsrLinear(nn.Linear(4, 3)), torch.randn(2, 4)
    refused = pytest.raises(pxframe.PxframeError, match=r"^CsrLinear computes .* outside torch.autocast$")
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad(), refused:
        layer(x)


def test_no_gradients():
    sparse = CsrLinear(thin(nn.Linear(6, 4)))
    assert not any(p.requires_grad for p in sparse.parameters())
    x = torch.randn(2, 6, requires_grad=True)
    with pytest.raises(pxframe.PxframeError, match=r"^CsrLinear is for inference only and has no gradient: call .*$"):
        sparse(x)
    with torch.no_grad():
        assert sparse(x).shape == (2, 4)


def test_copies_and_files():
    """They are made of plain tensors, which every format can hold."""
    layer, x = thin(nn.Conv2d(30, 17, 1, stride=2)), torch.randn(2, 30, 6, 6)
    sparse = CsrConv1x1(layer)
    assert_same(layer, copy.deepcopy(sparse), x)
    again = CsrConv1x1(thin(nn.Conv2d(30, 17, 1, stride=2)))
    for parameter in again.parameters():
        parameter.zero_()
    again.load_state_dict(load(save(sparse.state_dict())))
    assert_same(layer, again, x)
    file = io.BytesIO()
    torch.save(sparse, file)
    file.seek(0)
    assert_same(layer, torch.load(file, weights_only=False), x)
    assert_same(copy.deepcopy(layer).double(), sparse.double(), x.double())


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (nn.Conv2d(4, 4, 3), "its kernel is 3x3: only a 1x1 convolution is a matrix product"),
        (nn.Conv2d(4, 4, 1, groups=2), "it has 2 groups"),
        (nn.Conv2d(4, 4, 1, padding=1), "it pads its input"),
        (nn.Conv1d(4, 4, 1), "a Conv1d: only nn.Linear and nn.Conv2d themselves are replaced"),
        (nn.modules.linear.NonDynamicallyQuantizableLinear(4, 4), "a NonDynamicallyQuantizableLinear: only nn.Linear"),
        (nn.Linear(4, 4).half(), "its weights are torch.float16: torch multiplies CSR in float32 and float64"),
        (nn.Conv2d(4, 4, 1, padding="same"), ""),
        (nn.Conv2d(4, 4, 1, padding="valid", stride=2), ""),
        (nn.Linear(4, 4), ""),
    ],
)
def test_layers_without_a_csr_form(layer, reason):
    nn.init.ones_(layer.weight)
    if not reason:
        assert why_not(layer) == "no weight is zero"
    nn.init.zeros_(layer.weight)
    assert why_not(layer).startswith(reason)
    assert bool(why_not(layer)) == bool(reason)


def test_a_layer_with_hooks_stays():
    layer = thin(nn.Linear(4, 4))
    layer.register_forward_hook(lambda *_: None)
    assert why_not(layer) == "it has hooks"


PROGRAM = """
import sys, torch
from torch import nn
from pxframe.speed.csr import CsrLinear
if sys.argv[1] == "read":
    sparse = torch.load(sys.argv[2], weights_only=False)
else:
    layer = nn.Linear(6, 4)
    nn.init.zeros_(layer.weight)
    sparse = CsrLinear(layer)
    torch.save(sparse, sys.argv[2])
sparse(torch.randn(2, 6))
"""


@pytest.mark.slow
def test_torch_s_warnings_of_its_beta_state_do_not_reach_the_user(tmp_path):
    for what in ("write", "read"):  # torch warns once a process, so the first tensors of each count
        command = [sys.executable, "-W", "error", "-c", PROGRAM, what, str(tmp_path / "layer.pth")]
        told = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (told.returncode, told.stderr) == (0, "")
