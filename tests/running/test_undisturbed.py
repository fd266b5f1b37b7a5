"""What a forward pass does to a model is undone: buffers, attributes, cached tensors, containers, generators."""

import copy
from collections import deque
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import nn

from pxframe.running.undisturbed import seeded, undisturbed


class Nasty(nn.Module):
    """Changes itself in every way that plain Python allows."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 3)
        self.calls = 0
        self.position = None
        self.plain = torch.ones(3)
        self.history, self.cache, self.seen = [], {"sums": [torch.zeros(3)]}, set()
        self.window = deque(maxlen=2)
        self.numbers = np.zeros(2)
        self.generator = torch.Generator().manual_seed(3)
        self.register_buffer("ema", torch.zeros(2, 3, 4, 4).contiguous(memory_format=torch.channels_last))
        self.register_buffer("steps", torch.tensor(0))
        self.register_buffer("late", None)
        self.same = self.ema

    def forward(self, x):
        self.calls += 1
        if self.position is None:
            self.position = torch.linspace(0, 1, 3)
        self.plain.mul_(2)
        self.history.append(x)
        self.cache["sums"][0].add_(x.sum(0))
        self.cache[len(self.history)] = x
        self.seen.add(self.calls)
        self.window.append(x)
        self.numbers += 1
        self.ema.mul_(0.9).add_(1)
        assert torch.equal(self.same, self.ema)  # the copies share what the originals share
        self.steps = self.steps + 1
        self.late = torch.ones(1)
        self.train(not self.training)
        self.new = nn.Linear(3, 3)
        self.fc.bias = None
        return self.fc(x) + self.position + torch.rand(3, generator=self.generator)


def state_of(model):
    """Every object that the model holds, and the bits of every tensor, as deep copies."""
    kept = {id(m): dict(vars(m)) for m in model.modules()}
    return kept, copy.deepcopy(model.state_dict()), copy.deepcopy({k: v for k, v in vars(model).items()})


@pytest.mark.parametrize("fails", [False, True])
def test_a_model_that_changes_itself_is_as_it_was(fails):
    model = Nasty()
    objects, tensors, values = state_of(model)
    ema, strides, version = model.ema, model.ema.stride(), model.ema._version
    drawn = model.generator.get_state()
    with pytest.raises(ZeroDivisionError) if fails else nullcontext():  # noqa: SIM117
        with undisturbed(model):
            first = model(torch.ones(2, 3))
            if fails:
                1 / 0  # noqa: B018
    for module in model.modules():
        assert vars(module).keys() == objects[id(module)].keys()
        assert all(vars(module)[k] is v for k, v in objects[id(module)].items())
    found = model.state_dict()
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[k], v) for k, v in tensors.items())
    assert model.ema is ema
    assert model.ema.stride() == strides
    assert model.ema._version == version
    assert (model.calls, model.history, model.position, model.late) == (0, [], None, None)
    assert torch.equal(model.plain, values["plain"])
    assert list(model.cache) == ["sums"]
    assert torch.equal(model.cache["sums"][0], torch.zeros(3))
    assert model.seen == set()
    assert len(model.window) == 0
    assert model.numbers.tolist() == [0, 0]
    assert torch.equal(model.generator.get_state(), drawn)
    assert first.grad_fn is not None
    copy.deepcopy(model)


def test_gradients_reach_parameters_after_the_block():
    model = Nasty()
    with undisturbed(model):
        output = model(torch.ones(2, 3))
    output.sum().backward()
    assert model.fc.weight.grad is not None


def test_parameters_are_not_copied():
    model = nn.Linear(2, 2)
    weight = model.weight
    with undisturbed(model):
        assert model.weight is weight


def test_seeding_asks_nothing_of_gpus_that_it_does_not_restore(monkeypatch):
    """torch.manual_seed seeds every GPU: a caller's seed for one would be lost."""
    asked = []
    monkeypatch.setattr("torch.cuda.manual_seed_all", asked.append)
    monkeypatch.setattr("torch.cuda.manual_seed", asked.append)
    with seeded(5, torch.device("cpu")):
        pass
    assert asked == []
