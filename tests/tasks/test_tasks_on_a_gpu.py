"""Training of every task and the guard, rehearsed on a pretended GPU; nothing here ran on a real one."""

import importlib.util
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from mmengine.runner import EpochBasedTrainLoop
from pretend_gpu import PretendGPU
from torch import nn

import pxframe
from pxframe.plugin import registry
from pxframe.training.hooks.weights import TicketHook

torch.set_num_threads(1)  # in networks this small, threads wait for each other
spec = importlib.util.spec_from_file_location("gpu_benchmark", Path(__file__).parents[2] / "benchmarks" / "gpu.py")
benchmark = importlib.util.module_from_spec(spec)
spec.loader.exec_module(benchmark)
#: They choose boxes and pixels by masks, and move labels that no loader pins. The wrapper runs the backward passes.
LIBRARIES = ("torchvision/models/detection", "torchvision/ops", "mmseg/", "mmengine/structures", "mmengine/optim/")


@pytest.fixture(scope="module")
def configs(tmp_path_factory):
    return benchmark.task_configs(tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize("name", ["classification", "segmentation", "detection"])
def test_a_step_of_training_neither_mixes_nor_waits(configs, name, tmp_path, monkeypatch):
    """With a ticket's guard, the hooks after a step included."""
    provider = registry.build("backbone", "cifar_resnet")
    task = registry.build("task", {**configs[name], "epochs": 1})
    task.prepare()
    model = provider.build(depth=8, width=8, num_classes=2)
    ticket = pxframe.prune(model, None, "magnitude", 0.5, exclude=["linear.*"])
    step = EpochBasedTrainLoop.run_iter
    with PretendGPU(LIBRARIES) as gpu:

        def run_iter(*args):
            with gpu.round():
                step(*args)

        monkeypatch.setattr(EpochBasedTrainLoop, "run_iter", run_iter)
        runner = task.runner(model, provider, work_dir=tmp_path, device="cuda", seed=0, resume=False)
        task.rehearse(runner)
        runner.register_hook(TicketHook(ticket, "linear"))
        runner.train()
        assert runner.iter > 1
        assert all(p.is_cuda for p in runner.model.parameters())
        assert task.metric in runner.test()


@pytest.mark.parametrize("head", ["Ridge", "KNN"])
def test_a_fitted_head(configs, head, tmp_path):
    provider = registry.build("backbone", "cifar_resnet")
    task = registry.build("task", {**configs["classification"], "epochs": None, "head": {"type": head}})
    task.prepare()
    with PretendGPU():
        model = provider.build(depth=8, width=8, num_classes=2)
        runner = task.runner(model, provider, work_dir=tmp_path, device="cuda", seed=0, resume=False)
        runner.train()
        runner.test()


@pytest.mark.parametrize("name", ["classification", "segmentation", "detection"])
@pytest.mark.parametrize("scorer", ["snip", "px"])
def test_a_backbone_is_pruned_on_the_images_of_a_task(configs, name, scorer):
    if name != "classification" and scorer == "snip":
        pytest.skip("no loss of a backbone without the head")
    task = registry.build("task", configs[name])
    model = registry.build("backbone", "cifar_resnet").build(depth=8, width=8, num_classes=2)
    with PretendGPU():
        pxframe.prune(
            model.to("cuda"), task.batches(8, 4, seed=0), scorer, 0.5, rounds=2, loss=task.loss, allow_collapse=True
        )


OPTIMIZERS = {label.partition(": ")[2]: None for label, _ in benchmark.checks("cpu") if label.startswith("guard")}
#: They read numbers to find the length of a step, with or without a guard.
READING = ("LBFGS", "Adafactor")


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_guard_neither_mixes_nor_waits(name):
    with PretendGPU() as gpu:
        model = nn.Sequential(nn.Linear(16, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 4)).to("cuda")
        ticket = pxframe.prune(model, None, "magnitude", 0.8, scope="layer")
        ticket.apply(model)
        optimizer = benchmark.optimizers("cpu")[name](list(model.parameters()))
        x, y = torch.randn(8, 16, device="cuda"), torch.arange(8, device="cuda") % 4

        def closure():
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            return loss

        def steps():
            for _ in range(3):
                optimizer.step(closure)

        handle = ticket.guard(optimizer, model)
        if name in READING:
            steps()
        else:
            with gpu.round():
                steps()
        assert all(p.is_cuda for p in model.parameters())
        handle.remove()
