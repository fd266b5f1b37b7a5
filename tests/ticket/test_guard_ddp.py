"""The guard under DistributedDataParallel: two processes train what one process trains with weight * mask."""

import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import clip_grad_norm_

from pxframe.ticket.ticket import Ticket

pytestmark = pytest.mark.slow  # two processes, which import torch and meet

RANK = """
import sys
from datetime import timedelta
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.utils import clip_grad_norm_
import pxframe

rank, folder = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
dist.init_process_group(
    "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2, timeout=timedelta(seconds=100)
)
given = torch.load(f"{folder}/given.pth")
model = nn.Sequential(nn.Conv2d(2, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(96, 4))
model.load_state_dict(given["state"])
ticket = pxframe.Ticket.load(f"{folder}/ticket.safetensors")
ticket.apply(model)
wrapped = nn.parallel.DistributedDataParallel(model, gradient_as_bucket_view=given["views"])
optimizer = torch.optim.SGD(wrapped.parameters(), **given["sgd"])
ticket.guard(optimizer, wrapped)
norms = []
for x, y in given["batches"]:
    optimizer.zero_grad()
    nn.functional.cross_entropy(wrapped(x.chunk(2)[rank]), y.chunk(2)[rank]).backward()
    norms.append(clip_grad_norm_(wrapped.parameters(), given["clip"]))
    optimizer.step()
torch.save({"state": model.state_dict(), "norms": norms}, f"{folder}/rank-{rank}.pth")
dist.destroy_process_group()
"""
SGD = {"lr": 0.2, "momentum": 0.9, "weight_decay": 0.01}


@pytest.mark.parametrize("views", [False, True])
def test_two_processes_train_what_one_trains_with_weight_times_mask(tmp_path, views):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(96, 4))
    ticket = Ticket({n: torch.rand(p.shape) < 0.4 for n, p in model.named_parameters() if p.ndim > 1})
    ticket.save(tmp_path / "ticket.safetensors")
    batches = [(torch.randn(8, 2, 6, 6), torch.randint(0, 4, (8,))) for _ in range(6)]
    clip = 0.3
    given = {"state": model.state_dict(), "batches": batches, "sgd": SGD, "clip": clip, "views": views}
    torch.save(given, tmp_path / "given.pth")
    command = [sys.executable, "-c", RANK]
    ranks = [
        subprocess.Popen([*command, str(rank), str(tmp_path)], stderr=subprocess.PIPE, text=True) for rank in (0, 1)
    ]
    errors = [rank.communicate(timeout=200)[1] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], errors
    one, other = (torch.load(tmp_path / f"rank-{rank}.pth") for rank in (0, 1))

    # One process, all of each batch, and a forward pass that multiplies by the masks: no guard is at work.
    weights = {n: p.detach().clone().requires_grad_() for n, p in model.named_parameters()}
    optimizer, norms = torch.optim.SGD(weights.values(), **SGD), []
    for x, y in batches:
        optimizer.zero_grad()
        masked = {n: w * ticket.masks[n] if n in ticket.masks else w for n, w in weights.items()}
        F.cross_entropy(torch.func.functional_call(model, masked, (x,)), y).backward()
        norms.append(clip_grad_norm_(weights.values(), clip))
        optimizer.step()

    assert min(norms) > clip  # every step was clipped, so a pruned weight's gradient would have changed it
    torch.testing.assert_close(torch.stack(one["norms"]), torch.stack(norms), rtol=1e-5, atol=0)
    for name, weight in weights.items():
        trained = one["state"][name]
        assert torch.equal(trained, other["state"][name]), name
        mask = ticket.masks.get(name, torch.ones(trained.shape, dtype=torch.bool))
        assert (trained[~mask] == 0).all()
        torch.testing.assert_close(trained[mask], weight.detach()[mask], rtol=1e-4, atol=1e-6)
        assert ((trained - model.state_dict()[name])[mask].abs() > 1e-3).any(), name  # it was trained
