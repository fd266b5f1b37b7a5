"""The same seed gives the same ticket, bit for bit: in every process, with any number of loading processes."""

import json
import os
import subprocess
import sys

import pytest
import torch

import pxframe

#: Prunes a small residual network and prints a digest of each ticket's masks.
SCRIPT = """
import json, sys
import torch
from torch.utils.data import DataLoader, TensorDataset
import pxframe
from pxframe.ticket.file import fingerprint

threads, workers = map(int, sys.argv[1:3])
torch.set_num_threads(threads)
torch.manual_seed(0)
model = pxframe.build_backbone(dict(type="cifar_resnet", depth=8))
data = TensorDataset(torch.randn(24, 3, 32, 32), torch.arange(24) % 10)
found = {}
for config in json.loads(sys.argv[3]):
    torch.manual_seed(1)
    loader = DataLoader(data, batch_size=8, shuffle=True, num_workers=workers)
    ticket = pxframe.prune(model, loader, config, sparsity=0.9, rounds=3, seed=5, allow_collapse=True)
    found[str(config)] = [fingerprint(ticket.masks), torch.get_num_threads()]
print(json.dumps(found))
"""
METHODS = ["px", {"type": "px", "variant": "joint"}, "synflow", "logsynflow", "snip", "ntk_sap", "random"]


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, pytest.param(2, marks=pytest.mark.alone)])
def test_the_same_seed_gives_the_same_ticket(threads):
    found = {}
    for workers, again in ((0, False), (0, True), (2, False)):
        command = [sys.executable, "-c", SCRIPT, str(threads), str(workers), json.dumps(METHODS)]
        run = subprocess.run(
            command, capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": str(threads)}
        )
        found[workers, again] = json.loads(run.stdout)
    first = found[0, False]
    assert len({digest for digest, _ in first.values()}) == len(METHODS)
    assert {number for _, number in first.values()} == {threads}
    for key, digests in found.items():
        assert digests == first, key


def test_a_backward_pass_of_one_image_takes_one_thread(monkeypatch):
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(144, 2))
    seen, grad = [], torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *a, **k: seen.append(torch.get_num_threads()) or grad(*a, **k))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        for scorer, expected in (("synflow", 1), ("px", 1), ("snip", 2)):
            seen.clear()
            pxframe.score(model, [(torch.randn(4, 3, 8, 8), torch.arange(4) % 2)], scorer)
            assert seen == [expected] * len(seen), scorer
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
