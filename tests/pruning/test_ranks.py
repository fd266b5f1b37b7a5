"""Several ranks of torch.distributed: one ticket, whatever data each of them has; errors reach all of them."""

import subprocess
import sys

import pytest
import torch
from torch import nn

import pxframe
from pxframe.base.ranks import from_first

pytestmark = pytest.mark.slow  # two processes, which import torch and meet

START = """
import sys, warnings
from datetime import timedelta
warnings.simplefilter("ignore")
import torch
import torch.distributed as dist
from torch import nn
import pxframe

rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group(
    "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2, timeout=timedelta(seconds=100)
)
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
generator = torch.Generator().manual_seed(rank)
batches = [(torch.randn(6, 8, generator=generator), torch.randint(0, 4, (6,), generator=generator))]
"""

BODY = """
alone = pxframe.score(model, batches, scorer="snip")
torch.save(alone, f"{folder}/scores-{rank}")
wrapped = nn.parallel.DistributedDataParallel(model)
pxframe.prune(wrapped, batches, scorer="snip", sparsity=0.5).save(f"{folder}/ticket-{rank}")
for failing in (0, 1):
    try:
        ticket = pxframe.prune(model, [] if rank == failing else batches, scorer="snip", sparsity=0.5)
        print("kept", ticket.kept)
    except pxframe.PxframeError as error:
        print(error)
dist.destroy_process_group()
"""


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """Two processes that prune with data of their own: the folder they wrote to, and the lines each of them printed."""
    folder = tmp_path_factory.mktemp("ranks")
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    processes = [subprocess.Popen([sys.executable, "-c", START + BODY, str(r), str(folder)], **pipes) for r in (0, 1)]
    try:
        said = [process.communicate(timeout=300) for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, (_, errors) in zip(processes, said, strict=True):
        assert process.returncode == 0, errors
    return folder, [out.splitlines() for out, _ in said]


def test_every_rank_gets_the_ticket_of_rank_0(ranks):
    folder, _ = ranks
    scores = [torch.load(folder / f"scores-{rank}") for rank in (0, 1)]
    tickets = [pxframe.Ticket.load(folder / f"ticket-{rank}") for rank in (0, 1)]
    assert set(tickets[0].masks) == {"0.weight", "2.weight"}
    assert (folder / "ticket-0").read_bytes() == (folder / "ticket-1").read_bytes()
    expected = [_highest_half(s) for s in scores]
    assert any(not torch.equal(expected[0][n], expected[1][n]) for n in expected[0])  # the ranks' own would differ
    assert all(torch.equal(tickets[1].masks[n], expected[0][n]) for n in expected[0])


def _highest_half(scores):
    order = torch.cat([s.flatten() for s in scores.values()]).argsort(descending=True)
    flat = torch.zeros(len(order), dtype=torch.bool)
    flat[order[: len(order) // 2]] = True
    parts = flat.split([s.numel() for s in scores.values()])
    return {n: part.view(s.shape) for (n, s), part in zip(scores.items(), parts, strict=True)}


def test_an_error_of_rank_0_ends_all_ranks_in_one_line(ranks):
    first, second = (lines[0] for lines in ranks[1])
    assert "gave no (input, target) pair" in first
    assert second == f"rank 0: {first}"


def test_an_error_of_another_rank_alone_does_not_matter(ranks):
    assert [lines[1:] for lines in ranks[1]] == [["kept 96"], ["kept 96"]]


def test_a_single_process_just_works_and_raises_its_own_error():
    assert from_first(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        from_first(lambda: 1 // 0)
    assert pxframe.prune(nn.Linear(4, 4), None, scorer="magnitude", sparsity=0.5).kept == 8
