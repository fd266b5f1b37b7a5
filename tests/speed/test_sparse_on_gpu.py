"""2:4 weights, rehearsed without a GPU: what is chosen, what is said, and that torch's 2:4 form loses nothing.

``rehearsed`` says that the device has the kernels, and has weights packed into the 2:4 form by torch's own code for
CUTLASS, which runs on a CPU, and unpacked again. What is packed is real, and what multiplies it is not.
"""

import logging
import re
import warnings
from pathlib import Path

import pytest
import torch
from pretend_gpu import PretendGPU
from torch import nn
from torch.sparse._semi_structured_conversions import (
    sparse_semi_structured_from_dense_cutlass,
    sparse_semi_structured_to_dense_cutlass,
)

import pxframe
from pxframe.speed import gpu
from pxframe.speed.gpu import groups_over, no_kernels

CUDA = torch.device("cuda", 0)


def packed(weight):
    return sparse_semi_structured_to_dense_cutlass(*sparse_semi_structured_from_dense_cutlass(weight))


@pytest.fixture
def converted(monkeypatch):
    """The weights that were given to torch."""
    given = []

    def convert(weight):
        warnings.warn("The PyTorch API of SparseSemiStructuredTensor is in prototype stage", stacklevel=2)
        if weight.shape[0] % 32 or weight.shape[1] % 64:
            raise RuntimeError(f"Error original_tensor.shape {weight.shape} is not supported!\nBoth dimensions ...")
        given.append(weight)
        return packed(weight)

    monkeypatch.setattr(torch.sparse, "to_sparse_semi_structured", convert)
    return given


@pytest.fixture
def rehearsed(monkeypatch, converted):
    monkeypatch.setattr(gpu, "no_kernels", lambda device: "")
    return converted


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 64, 4, stride=4)
        self.point = nn.Conv2d(64, 64, 1)
        self.up = nn.Linear(64, 128)
        self.down = nn.Linear(128, 64, bias=False)
        self.small = nn.Linear(64, 8)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = self.point(self.stem(x)).relu().mean((2, 3))
        return self.head(self.small(x + self.down(self.up(x).relu())))


@pytest.fixture
def images():
    return torch.randn(2, 3, 8, 8).half()


def pruned(granularity="2:4", model=None, **options):
    """A network in half precision with a ticket applied, the classifier left out."""
    torch.manual_seed(0)
    model = model or Net()
    ticket = pxframe.prune(
        model, [(torch.randn(2, 3, 8, 8), None)], "magnitude", granularity=granularity, exclude="head.*", **options
    )
    ticket.apply(model)
    return model.half().eval()


def messages(caplog):
    assert all("\n" not in record.getMessage() for record in caplog.records)
    return [record.getMessage() for record in caplog.records if record.name == "pxframe.speed.gpu"]


def test_layers_that_are_2_4_are_converted_and_the_others_named(rehearsed, caplog, images):
    model = pruned()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
        warnings.simplefilter("error")
        found = pxframe.sparse_on_gpu(model, images)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert found.sparse == {"up": "2:4", "down": "2:4"}
    assert [tuple(weight.shape) for weight in rehearsed] == [(128, 64), (64, 128)]
    convolutions = "torch has no 2:4 kernels for convolutions"
    assert found.dense.pop("head").startswith(
        "its weight is not 2:4: 10 of 10 groups of four inputs keep more than two"
    )
    assert found.dense == {
        "stem": convolutions,
        "point": convolutions,
        "small": "Error original_tensor.shape torch.Size([8, 64]) is not supported!",
    }
    linear, convolution = messages(caplog)
    assert linear.startswith("sparse_on_gpu: linear layers that stay dense: small (Error original_tensor.shape")
    assert "head (its weight is not 2:4" in linear
    assert convolution == (
        "sparse_on_gpu: convolutions stay as they are, since torch has no 2:4 kernels for them: point"
    )
    assert found.error == 0
    with torch.no_grad():
        assert torch.equal(found.model(images), model(images))
    assert not any(p.requires_grad for p in found.model.parameters())


def test_a_ticket_of_single_weights_is_not_2_4(rehearsed, caplog, images):
    found = pxframe.sparse_on_gpu(pruned("weight", sparsity=0.5), images)
    assert rehearsed == []
    assert found.sparse == {}
    assert "its weight is not 2:4" in found.dense["up"]


def test_4_8_is_not_2_4_and_1_4_is(rehearsed, images):
    found = pxframe.sparse_on_gpu(pruned("4:8"), images)
    assert found.sparse == {}
    found = pxframe.sparse_on_gpu(pruned("1:4"), images)
    assert list(found.sparse) == ["up", "down"]


@pytest.mark.parametrize("seed", range(3))
def test_the_pattern_is_that_of_torch_s_own_packing(seed):
    """Packing loses nothing exactly where no group of four consecutive inputs keeps more than two."""
    torch.manual_seed(seed)
    weight = (torch.randn(32, 64) + 3).half()
    of_rows = weight.unflatten(1, (-1, 4))
    fits = of_rows.scatter(-1, torch.rand(of_rows.shape).topk(2).indices, 0).flatten(1)
    assert groups_over(fits) == 0
    assert torch.equal(packed(fits), fits)
    one_more = fits.clone()
    one_more[7, 20:24] = torch.tensor([1.0, 2.0, 3.0, 0.0])
    assert groups_over(one_more) == 1
    assert not torch.equal(packed(one_more), one_more)
    of_columns = weight.t().contiguous().unflatten(1, (-1, 4))
    turned = of_columns.scatter(-1, torch.rand(of_columns.shape).topk(2).indices, 0).flatten(1).t().contiguous()
    assert groups_over(turned) > 0  # 2:4 over outputs is no use
    assert not torch.equal(packed(turned), turned)
    shifted = fits.roll(2, 1)  # 2:4, but from the third input on
    assert (groups_over(shifted) == 0) == torch.equal(packed(shifted), shifted)


@pytest.mark.parametrize("capability", [(7, 5), (8, 0), (8, 6), (9, 0), (10, 0)])
def test_the_compute_capability_decides(monkeypatch, capability):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    told = no_kernels(CUDA)
    if capability[0] >= 8:
        assert told == ""
    else:
        assert told == (
            "cuda:0 has compute capability 7.5: 2:4 weights need an NVIDIA GPU of compute capability 8.0 or more, "
            "every layer stays as it is"
        )


def test_on_a_cpu_one_line_says_so(caplog, converted, images):
    model = pruned()
    with caplog.at_level(logging.WARNING):
        found = pxframe.sparse_on_gpu(model, images)
    told, convolutions = messages(caplog)
    assert told == (
        "sparse_on_gpu: the model is on cpu: 2:4 weights need an NVIDIA GPU of compute capability 8.0 or more, "
        "every layer stays as it is"
    )
    assert convolutions.startswith("sparse_on_gpu: convolutions stay")
    assert converted == []
    assert found.sparse == {}
    assert found.dense["up"].startswith("the model is on cpu: ")
    with torch.no_grad():
        assert torch.equal(found.model(images), model(images))


@pytest.mark.parametrize("capability", [(7, 5), (9, 0)])
def test_on_a_pretended_gpu(monkeypatch, converted, caplog, images, capability):
    """The same lines as on a real one: no tensor of the CPU meets one of the GPU."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    with PretendGPU(), caplog.at_level(logging.WARNING):
        found = pxframe.sparse_on_gpu(pruned().to("cuda"), images.to("cuda"))
    if capability[0] < 8:
        assert messages(caplog)[0].startswith("sparse_on_gpu: cuda:0 has compute capability 7.5: 2:4 weights need")
    assert list(found.sparse) == (["up", "down"] if capability[0] >= 8 else [])


def test_float32_is_refused_since_its_pattern_is_another(rehearsed, images):
    """torch packs float32 too, but one of every two inputs there, and would drop weights."""
    found = pxframe.sparse_on_gpu(pruned().float(), images.float())
    assert found.sparse == {}
    assert (
        found.dense["up"] == "its weight is torch.float32: model.half() or model.bfloat16() gives what the kernels take"
    )
    with pytest.raises(AssertionError):
        torch.testing.assert_close(packed(pruned().float().up.weight.detach()), pruned().float().up.weight.detach())


def test_a_kernel_that_fails_or_is_wrong_leaves_the_layer(rehearsed, monkeypatch, images):
    def missing(weight):
        raise RuntimeError("cuSPARSELt not supported on your machine.\nmore")

    model = pruned()
    monkeypatch.setattr(torch.sparse, "to_sparse_semi_structured", missing)
    found = pxframe.sparse_on_gpu(model, images)
    assert found.sparse == {}
    assert found.dense["up"] == "cuSPARSELt not supported on your machine."
    monkeypatch.setattr(torch.sparse, "to_sparse_semi_structured", lambda weight: 1.1 * weight)
    found = pxframe.sparse_on_gpu(model, images)
    assert found.sparse == {}
    assert found.dense["up"].startswith("the 2:4 kernel gives other outputs on cpu, by ")
    with torch.no_grad():
        assert torch.equal(found.model(images), model(images))


def test_layers_whose_weight_is_read_otherwise_stay(rehearsed):
    torch.manual_seed(0)
    model = nn.MultiheadAttention(64, 2).half().eval()
    model.other = nn.Linear(64, 64).half()
    for weight in (model.out_proj.weight, model.other.weight):
        nn.init.zeros_(weight)
    x = torch.randn(5, 1, 64).half()
    found = pxframe.sparse_on_gpu(model, (x, x, x))
    assert found.sparse == {}
    assert found.dense == {
        "out_proj": "a NonDynamicallyQuantizableLinear: only nn.Linear itself is converted",
        "other": "the network does not run it as a layer",
    }


def test_a_network_that_gives_something_else_is_not_given_to_the_user(rehearsed, images):
    class Odd(Net):
        def forward(self, x):
            return super().forward(x) * (1 if self.up.weight.requires_grad else 2)

    with pytest.raises(pxframe.PxframeError, match=r"^with sparse layers the network's outputs differ by 1\.0e\+00 of"):
        pxframe.sparse_on_gpu(pruned(model=Odd()), images)


def test_the_guide_on_a_pretended_gpu(monkeypatch, converted, capsys):
    guide = (Path(__file__).parents[2] / "docs" / "sparse.md").read_text(encoding="utf-8")
    block = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)[1]
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    scope = {
        "torch": torch,
        "pxframe": pxframe,
        "config": dict(type="timm", model="test_vit", pretrained=False),
        "images": torch.randn(2, 3, 160, 160),
    }
    with PretendGPU():
        exec(block, scope)
    assert "blocks.0.attn.qkv" in scope["fast"].sparse
    assert "'blocks.0.attn.qkv': '2:4'" in capsys.readouterr().out
