"""The pretended GPU finds each fault in a small program that has it, and stays silent on programs without."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pretend_gpu import CUDA, PretendGPU
from torch import nn

torch.set_num_threads(1)


def numbers(*shape):
    return torch.arange(1.0, 1 + int(np.prod(shape))).view(shape).to("cuda")


def run(program):
    """The faults of ``program()`` in a round; it is given numbers on the device."""
    gpu = PretendGPU()
    with gpu:
        x = numbers(3, 4)
        with gpu.round():
            program(x)
        found, gpu.faults = gpu.faults, []
    return {fault.kind for fault in found}


def hooked(x):
    w = x.clone().requires_grad_()
    w.register_hook(lambda gradient: gradient * torch.ones(3, 4))
    (w * 2).sum().backward()


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, gradient):
        return gradient * torch.full((4,), 2.0)


MIXES = {
    "plus": lambda x: x + torch.ones(3, 4),
    "a constant made on the CPU": lambda x: x * torch.eye(4)[0],
    "matrices": lambda x: x @ torch.ones(4, 2),
    "stack of numbers": lambda x: torch.stack([x.sum(), torch.zeros(())]),
    "cat": lambda x: torch.cat([x, torch.zeros(1, 4)]),
    "written into a tensor of the CPU": lambda x: torch.zeros(()).add_(x.sum()),
    "out": lambda x: torch.add(x, x, out=torch.empty(3, 4)),
    "a layer on the CPU": lambda x: nn.Linear(4, 2)(x),
    "a computed tensor": lambda x: F.relu(x).T + (torch.ones(4, 3) * 2).exp(),
    "a buffer of the CPU in a loss": lambda x: F.cross_entropy(x, torch.tensor([0, 1, 2])),
    "a hook of a backward pass": hooked,
    "a function's backward": lambda x: torch.autograd.grad(Doubled.apply(x.requires_grad_()).sum(), x),
    "numpy": lambda x: x.numpy(),
    "a generator of the CPU": lambda x: torch.randn(3, device=x.device, generator=torch.Generator()),
}
READS = {
    "item": lambda x: x.sum().item(),
    "float": lambda x: float(x[0, 0]),
    "if": lambda x: 1 if x.any() else 0,
    "while": lambda x: 1 if (x.clone() * 2).sum() > 3 else 0,
    "nonzero": lambda x: x.nonzero(),
    "where": lambda x: torch.where(x > 2),
    "mask": lambda x: x[x > 2],
    "values behind a mask": lambda x: x.clone().__setitem__(x > 1, x.flatten()[1:]),
    "masked_select": lambda x: x.masked_select(x > 2),
    "unique": lambda x: x.unique(),
    "cpu": lambda x: x.cpu(),
    "to": lambda x: x.to("cpu"),
    "to a tensor of the CPU": lambda x: x.to(torch.zeros(())),
    "tolist": lambda x: x.tolist(),
    "equal": lambda x: torch.equal(x, x),
    "allclose": lambda x: torch.allclose(x, x),
    "copy_": lambda x: torch.empty(3, 4).copy_(x),
    "isin a gradient": lambda x: torch.autograd.grad(x.requires_grad_().exp().sum(), x)[0].max().item(),
}
COPIES = {
    "to": lambda x: torch.ones(2).to("cuda"),
    "to the device of a tensor": lambda x: torch.ones(2).to(x.device),
    "to a tensor": lambda x: torch.ones(2).to(x),
    "cuda": lambda x: torch.ones(2).cuda(),
    "tensor": lambda x: torch.tensor([1.0], device=x.device),
    "new_tensor": lambda x: x.new_tensor([1.0]),
    "copy_": lambda x: x.copy_(torch.ones(3, 4)),
    "indices of the CPU": lambda x: x[torch.tensor([0, 1])],
    "a list of indices": lambda x: x[[0, 1]],
    "pinned, but waiting": lambda x: torch.ones(2).pin_memory().to(x.device),
    "not pinned": lambda x: torch.ones(2).to(x.device, non_blocking=True),
}


@pytest.mark.parametrize("program", MIXES.values(), ids=MIXES)
def test_tensors_of_two_devices(program):
    assert run(program) == {"mix"}


@pytest.mark.parametrize("program", READS.values(), ids=READS)
def test_reads(program):
    assert run(program) == {"read"}


@pytest.mark.parametrize("program", COPIES.values(), ids=COPIES)
def test_copies(program):
    assert run(program) == {"copy"}


def trained(x):
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.LazyLinear(5))
    model(torch.zeros(2, 3, 4, 4))
    optimizers = [torch.optim.SGD(model.parameters(), 0.1, 0.9), torch.optim.AdamW(model.parameters())]
    return model, optimizers


CLEAN = {
    "arithmetic": lambda x: (2 * x + 1 - x / 3).softmax(1).var(0),
    "a number of the CPU": lambda x: torch.maximum(x * torch.tensor(2.0), torch.zeros(())),
    "made on the device": lambda x: x + torch.zeros(3, 4, device=x.device) + torch.ones(4, device="cuda"),
    "made like it": lambda x: x + torch.rand_like(x) + x.new_zeros(4) + torch.zeros_like(x),
    "positional": lambda x: x.view(3, 4).to(x.device, torch.float64) + torch.arange(4, device=x.device),
    "filled in": lambda x: x.clone().masked_fill_(x > 2, 0.0).__setitem__(x.clone() > 2, 0.0),
    "indices of the device": lambda x: x[torch.arange(2, device=x.device)],
    "slices": lambda x: x[1:, None, ..., 2],
    "pinned": lambda x: x + torch.ones(3, 4).pin_memory().to(x.device, non_blocking=True),
    "copied objects": lambda x: copy.deepcopy(x) + x,
    "on the CPU alone": lambda x: float((torch.ones(3) + torch.arange(3)).numpy().sum()),
    "second derivative": lambda x: torch.autograd.grad(
        torch.autograd.grad((x.requires_grad_() ** 3).sum(), x, create_graph=True)[0].sum(), x
    ),
    "a sparse gradient": lambda x: (
        F.embedding(torch.zeros(2, dtype=torch.long, device=x.device), x.requires_grad_(), sparse=True).sum().backward()
    ),
    "its own device": lambda x: torch.zeros(2, device=x.device).device == CUDA == x.device and x.is_cuda,
    "a part that nothing uses": lambda x: torch.autograd.grad(
        x.requires_grad_().split(2, 1)[0].sum() + x.unbind(1)[0].sum(), x
    ),
}


@pytest.mark.parametrize("program", CLEAN.values(), ids=CLEAN)
def test_silence(program):
    assert run(program) == set()


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW, torch.optim.Muon])
def test_silence_on_a_step_of_training(optimizer):
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.GELU(), nn.Dropout(), nn.Linear(8, 3))
    if optimizer is torch.optim.Muon:
        model = nn.Linear(4, 3, bias=False)
    with PretendGPU() as gpu:
        model.to("cuda")
        chosen = optimizer(model.parameters(), lr=0.1)
        inputs, targets = torch.randn(6, 4, device="cuda"), torch.arange(6, device="cuda") % 3
        for _ in range(2):
            with gpu.round():
                F.cross_entropy(model(inputs), targets).backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                chosen.step()
                chosen.zero_grad()
        assert all(p.device == CUDA for p in model.parameters())


def test_outside_of_rounds_reads_are_only_listed():
    with PretendGPU() as gpu:
        x = numbers(2)
        float(x.sum())
        assert [f.kind for f in gpu.seen] == ["copy", "read"]
        assert "test_pretend_gpu.py" in gpu.seen[1].place


@pytest.mark.parametrize("device", ["cuda", "cuda:0", torch.device("cuda"), CUDA])
@pytest.mark.parametrize("options", [{}, {"memory_format": torch.channels_last}, {"dtype": torch.float64}])
def test_modules_are_moved(device, options):
    with PretendGPU():
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).to(device, **options)
        assert all(t.is_cuda for t in model.state_dict().values())
        assert not any(t.is_cuda for t in model.to("cpu").state_dict().values())


def test_it_fails_when_it_ends():
    with pytest.raises(AssertionError, match=r"mix \(add\) tests/test_pretend_gpu.py:\d+ test_it_fails"), PretendGPU():
        numbers(2) + torch.ones(2)


def test_all_is_as_before_when_it_ends():
    with PretendGPU():
        x = numbers(2)
        assert torch.cuda.is_available()
    assert x.device.type == "cpu"
    if torch.version.cuda is None or not torch.cuda.is_available():
        assert torch.zeros(2).device.type == "cpu"
