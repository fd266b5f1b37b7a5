"""Training a task without the channels that a ticket removed: what the tests of all tasks share."""

import json

import torch

import pxframe
from pxframe.plugin import registry
from pxframe.training.run import Setting, train


def train_slim(task, folder, size):
    """Train a task's slim model, and check what is written.

    Args:
        size: of the images that the written program is run on.

    Returns:
        what the run gives, and the program's outputs for two images.
    """
    provider = registry.build("backbone", {"type": "cifar_resnet"})
    torch.manual_seed(0)
    model = provider.build(depth=8, width=8)
    settings = {"granularity": {"type": "channel", "groups": "mean"}, "exclude": "linear.*"}
    ticket = pxframe.prune(model, [(torch.randn(2, 3, 32, 32), None)], "random", 0.5, **settings)
    task.prepare()
    result = train(Setting(provider, "cpu", 0), "slim", task, model, ticket, folder, slim=True)
    assert all(0 < result["slim"][kind] < 1 for kind in ("params", "flops"))
    assert result["slim"]["latency"] > 0
    description = json.loads((folder / "slim" / "slim.json").read_text())
    assert all(after < before for before, after in description["channels"].values())
    assert any(name.startswith("backbone") for name in description["channels"])
    program = torch.export.load(folder / "slim" / "program.pt2").module()
    with torch.no_grad():
        return result, program(torch.randn(2, 3, size, size))
