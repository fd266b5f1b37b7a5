"""Every method that needs no training gives the ticket of one process when two ranks share the batches."""

import subprocess
import sys

import pytest
import torch

import pxframe

pytestmark = pytest.mark.slow  # two processes that prune with every method

MODEL = """
import torch
from torch import nn
import pxframe


def network():
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(2, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(),
        nn.Linear(32, 4),
    ).eval()


def data():
    generator = torch.Generator().manual_seed(4)
    # Five batches for two ranks: in the last turn one of them has none. The last is smaller.
    sizes = (4, 4, 4, 4, 3)
    return [
        (torch.randn(n, 2, 6, 6, generator=generator), torch.randint(0, 4, (n,), generator=generator)) for n in sizes
    ]


def methods():
    from pxframe.plugin.registry import build, names

    more = {"shuffled": {"of": "snip"}}
    every = [{"type": name, **more.get(name, {})} for name in names("scorer")]
    return [
        *(method for method in every if build("scorer", method).needs != "training"),
        {"type": "px", "variant": "calibrated"},
        {"type": "px", "variant": "joint"},
        {"type": "snip", "granularity": "channel"},
        # A refit reads all batches on every rank; the next round scores, with shared batches, what it has made.
        *({"type": "snip", "refit": {"type": name, "when": when}} for name in ("obs", "bn") for when in REFITS),
        {"type": "magnitude", "refit": {"type": "obs", "sequential": False}},
        {"type": "px", "refit": "rescale"},
        {"type": "px", "refit": "reinit"},
    ]


REFITS = ("last", "every", "between")


def tickets(shared):
    found = {
        str(method): pxframe.prune(
            network(), data(), method, sparsity=0.6, rounds=2, allow_collapse=True, shared=shared
        )
        for method in methods()
    }
    plain = pxframe.prune(network(), data(), "px", sparsity=0.6, rounds=2, shared=shared)
    return {**found, "refitted later": pxframe.refit(network(), plain, data(), "obs")}
"""
RANK = """
import sys
from datetime import timedelta
import torch.distributed as dist
rank, folder = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
dist.init_process_group(
    "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2, timeout=timedelta(minutes=30)
)
for number, ticket in enumerate(tickets(shared=True).values()):
    ticket.save(f"{folder}/{number}-{rank}.safetensors")
dist.destroy_process_group()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where two ranks left the tickets of all methods."""
    folder = tmp_path_factory.mktemp("ranks")
    command = [sys.executable, "-c", MODEL + RANK]
    ranks = [subprocess.Popen([*command, str(rank), str(folder)], stderr=subprocess.PIPE, text=True) for rank in (0, 1)]
    errors = [rank.communicate()[1] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], errors
    return folder


def test_every_method_gives_the_ticket_of_one_process(folder):
    alone = {}
    exec(MODEL, alone)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        expected = alone["tickets"](shared=False)
    finally:
        torch.set_num_threads(threads)
    assert len(expected) > 20
    for number, (method, ticket) in enumerate(expected.items()):
        for rank in (0, 1):
            found = pxframe.Ticket.load(folder / f"{number}-{rank}.safetensors")
            assert found.masks.keys() == ticket.masks.keys()
            for name, mask in ticket.masks.items():
                assert torch.equal(found.masks[name], mask), (method, rank, name)
            assert found.start.keys() == ticket.start.keys()
            for name, value in ticket.start.items():
                assert torch.equal(found.start[name], value), (method, rank, name)
    distinct = {tuple(torch.cat([m.flatten() for m in t.masks.values()]).tolist()) for t in expected.values()}
    assert len(distinct) > 15  # the methods do not all give one ticket
    later, last = expected["refitted later"], expected[str({"type": "snip", "refit": {"type": "obs", "when": "last"}})]
    assert later.start.keys() == last.start.keys() > {"0.weight", "1.running_var", "6.weight"}


def test_ranks_read_different_batches(tmp_path):
    """Each of two ranks passes its own batches only through the network."""
    count = """
import sys
from datetime import timedelta
import torch.distributed as dist
rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group(
    "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2, timeout=timedelta(minutes=30)
)
from pxframe.pruning.arguments import full_masks
from pxframe.passes.batches import Batches
from pxframe.network.net import Net
model, seen = network(), []
model.register_forward_pre_hook(lambda module, given: seen.append(float(given[0].sum())))
net = Net(model, full_masks(model, ["3.weight"]))
gradients = net.gradients(Batches(data(), torch.device("cpu"), shared=True))
torch.save((seen, gradients), f"{folder}/{rank}.pth")
dist.destroy_process_group()
"""
    command = [sys.executable, "-c", MODEL + count]
    ranks = [
        subprocess.Popen([*command, str(rank), str(tmp_path)], stderr=subprocess.PIPE, text=True) for rank in (0, 1)
    ]
    errors = [rank.communicate()[1] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], errors
    alone = {}
    exec(MODEL, alone)
    sums = [float(inputs.sum()) for inputs, _ in alone["data"]()]
    (first, one), (second, other) = (torch.load(tmp_path / f"{rank}.pth") for rank in (0, 1))
    assert first == pytest.approx(sums[0::2])
    assert second == pytest.approx(sums[1::2])
    assert torch.equal(one["3.weight"], other["3.weight"])
