"""Names of devices, and what is sent to them."""

import pytest
import torch
from pretend_gpu import CUDA, PretendGPU

from pxframe.base.devices import checked_device, held_for, sent
from pxframe.base.errors import PxframeError
from pxframe.passes.batches import Batches


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "cuda:-1", "cpu:0", "mps", "", "meta", 3, None])
def test_other_names(name):
    with PretendGPU(), pytest.raises(PxframeError, match="device must be 'cpu', 'cuda' or 'cuda:N', got"):
        checked_device(name)


def test_names():
    assert checked_device("cpu").type == "cpu"
    with PretendGPU():
        assert checked_device("cuda") == torch.device("cuda")
        assert checked_device("cuda:0") == CUDA
        with pytest.raises(PxframeError, match="device 'cuda:3': torch sees no such GPU, only 1, from 'cuda:0' on"):
            checked_device("cuda:3")


def test_no_gpu(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(PxframeError, match="device 'cuda:1': torch sees no GPU on this machine; use 'cpu'"):
        checked_device("cuda:1")


def test_nothing_waits_for_what_is_sent():
    with PretendGPU() as gpu, gpu.round():
        assert sent(torch.ones(2), CUDA).is_cuda
        there = torch.ones(2, device="cuda")
        assert sent(there, CUDA) is there
        assert held_for(torch.ones(2), CUDA).is_pinned()
    here = torch.ones(2)
    assert sent(here, torch.device("cpu")) is here


def test_batches_wait_on_the_host_and_every_pass_sends_copies():
    """So they may be more than a GPU can hold. Targets may be nested, as a detector's are."""
    pairs = [(torch.ones(2, 3), {"labels": [torch.arange(2)], "names": ["a", "b"]})]
    with PretendGPU() as gpu:
        batches = Batches(pairs, CUDA)
        with gpu.round():
            for _ in range(2):
                [(inputs, targets)] = list(batches)
                assert inputs.is_cuda
                assert targets["labels"][0].is_cuda
                assert targets["names"] == ["a", "b"]
                assert inputs.mul_(2).shape == (2, 3)
        held = batches._seen[0]
        assert held[0].is_pinned()
        assert not held[0].is_cuda
    assert torch.equal(held[0], torch.ones(2, 3))
