"""Losses are read when an epoch ends, and are then those of every step."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.logging import MessageHub
from pretend_gpu import PretendGPU

from pxframe.training.hooks import reports
from pxframe.training.hooks.reports import EpochBar, LateLosses, mean_loss


@pytest.fixture
def run():
    hub = MessageHub.get_instance("test_reports")
    yield SimpleNamespace(message_hub=hub, train_dataloader=[0, 0, 0], epoch=0, iter=0, max_iters=6, optim_wrapper=None)
    MessageHub._instance_dict.pop("test_reports")


def test_the_mean_of_an_epoch(run):
    hook = LateLosses()
    with PretendGPU() as gpu:
        for epoch in range(2):
            hook.before_train_epoch(run)
            for step in range(3):
                losses = {"loss": torch.full((1,), 10.0 * epoch + step, device="cuda"), "rate": 0.5}
                with gpu.round():
                    hook.after_train_iter(run, step, None, losses)
            with gpu.round():
                hook.after_train_iter(run, step, None, None)
            hook.after_train_epoch(run)
            assert mean_loss(run) == 10 * epoch + 1
        assert [fault.kind for fault in gpu.seen] == ["read", "read"]  # one an epoch
    assert run.message_hub.get_scalar("train/rate").mean(3) == 0.5


def test_a_bar_reads_the_loss_twice_a_second(run, monkeypatch):
    texts, now = [], [0.0]
    bar = EpochBar("a run")
    bar._bar = SimpleNamespace(shown=True, advance=texts.append)
    monkeypatch.setattr(reports.time, "monotonic", lambda: now[0])
    with PretendGPU() as gpu:
        for step in range(10):
            now[0] = 0.2 * step
            bar.after_train_iter(run, step, None, {"loss": torch.tensor(float(step), device="cuda")})
        assert [fault.operation for fault in gpu.seen].count("_local_scalar_dense") == 4
    assert texts == [f"loss {n}.000" for n in (0, 0, 0, 3, 3, 3, 6, 6, 6, 9)]
