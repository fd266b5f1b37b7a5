"""Two ranks: the functions of base/ranks, and batch norm over the batches of both, beside one process."""

import math
import subprocess
import sys

import pytest
import torch
from torch import nn

from pxframe.base import ranks
from pxframe.base.errors import PxframeError
from pxframe.training.hooks.sharing import SharedStatistics, check_share
from pxframe.training.settings import Training
from pxframe_tools import cli, processes

#: The command line, without what tells errors in one line and ends the process.
command = cli.main.__wrapped__
ALONE = cli.COMMANDS.keys() - {"transfer", "prune"}

RANKS = """
import os
import sys
from datetime import timedelta
from types import SimpleNamespace
import torch
import torch.distributed as dist
from torch import nn
from pxframe.base import ranks
from pxframe.base.errors import PxframeError
from pxframe.training.hooks.reports import LateLosses
from pxframe.training.hooks.sharing import BatchSampler, SharedStatistics

folder = sys.argv[1]
second = os.fork()  # imports are done once, which take most of the time
rank = 0 if second else 1
dist.init_process_group(
    "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2, timeout=timedelta(minutes=30)
)
found = {"is": (ranks.size(), ranks.rank(), ranks.is_main())}
found["broadcast"] = ranks.broadcast_object(f"from {rank}")
found["summed"] = ranks.summed(torch.tensor([1.0, 10.0]) * (rank + 1))
found["gathered"] = ranks.gathered(torch.tensor([rank]))
found["collected"] = ranks.collected(torch.arange(rank, 6, 2), 5)
done = []
found["by_first"] = ranks.by_first(lambda: done.append(rank) or "made"), done
tensor = torch.full((2, 3), float(rank)).t()
ranks.broadcast_tensors({"t": tensor})
found["tensor"] = tensor
try:
    ranks.by_first(lambda: 1 // 0)
except (ZeroDivisionError, PxframeError) as error:
    found["error"] = type(error).__name__, str(error)
sampler = [BatchSampler(range(n), 4, "here", seed=1) for n in (11, 2)]
found["sampled"] = [(list(s), len(s)) for s in sampler]

heard = []
hub = SimpleNamespace(update_scalar=lambda name, value: heard.append((name, value)))
losses = LateLosses()
losses._losses = {"loss": [torch.tensor(1.0 + rank), torch.tensor(float("nan") if rank else 2.0)]}
losses.after_train_epoch(SimpleNamespace(message_hub=hub))
found["heard"] = heard

given = torch.load(f"{folder}/given.pth")
norm = nn.BatchNorm2d(3)
norm.load_state_dict(given["state"])
x = given["x"][rank::2].clone().requires_grad_()
with SharedStatistics():
    y = norm(x)
    (y * given["y"][rank::2]).sum().backward()
gradients = [ranks.summed(p.grad) for p in (norm.weight, norm.bias)]
found["norm"] = y.detach(), x.grad, gradients, norm.state_dict()
torch.save(found, f"{folder}/{rank}.pth")
dist.destroy_process_group()
if second:
    sys.exit(os.waitpid(second, 0)[1] != 0)
"""


@pytest.fixture(scope="module")
def met(tmp_path_factory):
    """What was given to two ranks, and what each of them found."""
    folder = tmp_path_factory.mktemp("ranks")
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(3)
    nn.init.uniform_(norm.weight)
    nn.init.normal_(norm.bias)
    given = {"x": 3 + 2 * torch.randn(6, 3, 4, 5), "y": torch.randn(6, 3, 4, 5), "state": norm.state_dict()}
    torch.save(given, folder / "given.pth")
    both = subprocess.run([sys.executable, "-c", RANKS, str(folder)], stderr=subprocess.PIPE, text=True)
    assert both.returncode == 0, both.stderr
    return given, [torch.load(folder / f"{r}.pth") for r in (0, 1)]


def test_what_two_ranks_tell_each_other(met):
    _, found = met
    assert [f["is"] for f in found] == [(2, 0, True), (2, 1, False)]
    assert [f["broadcast"] for f in found] == ["from 0"] * 2
    assert [f["by_first"] for f in found] == [("made", [0]), ("made", [])]
    for one in found:
        assert one["summed"].tolist() == [3, 30]
        assert [t.tolist() for t in one["gathered"]] == [[0], [1]]
        assert one["collected"].tolist() == [0, 1, 2, 3, 4]
        assert one["tensor"].eq(0).all()
    words = "integer division or modulo by zero"
    assert [f["error"] for f in found] == [("ZeroDivisionError", words), ("PxframeError", f"rank 0: {words}")]


def test_ranks_are_dealt_the_batches_of_one_process(met):
    _, found = met
    order = torch.randperm(11, generator=torch.Generator().manual_seed(1)).tolist()
    (first, number), small = found[0]["sampled"]
    second, _ = found[1]["sampled"][0]
    assert number == len(first) == len(second) == 4
    assert [{*first[i : i + 2], *second[i : i + 2]} for i in (0, 2)] == [{*order[:4]}, {*order[4:8]}]
    assert sorted(small[0] + found[1]["sampled"][1][0]) == [0, 1]


def test_a_loss_that_is_not_finite_on_one_rank_is_so_on_all(met):
    for one in met[1]:
        (name, first), (_, second) = one["heard"]
        assert (name, first) == ("train/loss", 1.5)
        assert math.isnan(second)


def test_batch_norm_over_two_ranks_is_that_of_the_whole_batch(met):
    given, found = met
    norm = nn.BatchNorm2d(3)
    norm.load_state_dict(given["state"])
    x = given["x"].clone().requires_grad_()
    y = norm(x)
    (y * given["y"]).sum().backward()
    for rank, one in enumerate(found):
        output, gradient, parameters, state = one["norm"]
        torch.testing.assert_close(output, y[rank::2].detach(), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(gradient, x.grad[rank::2], rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(parameters, [norm.weight.grad, norm.bias.grad], rtol=1e-4, atol=1e-4)
        for name, value in norm.state_dict().items():
            torch.testing.assert_close(state[name], value, rtol=1e-5, atol=1e-6)
    # The statistics of a share alone would be others.
    assert not torch.allclose(nn.BatchNorm2d(3)(given["x"][0::2]), nn.BatchNorm2d(3)(given["x"])[0::2], atol=1e-3)


def test_in_one_process_nothing_is_shared():
    tensor = torch.randn(3)
    assert (ranks.size(), ranks.rank(), ranks.is_main()) == (1, 0, True)
    assert ranks.broadcast_object(tensor) is tensor
    assert ranks.gathered(tensor)[0] is tensor
    assert torch.equal(ranks.summed(tensor), tensor)
    assert ranks.by_first(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        ranks.by_first(lambda: 1 // 0)
    check_share("anything", 7)
    norm, other = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    x = torch.randn(5, 2)
    with SharedStatistics():
        y = norm(x)
    torch.testing.assert_close(y, other(x))
    torch.testing.assert_close(norm.running_var, other.running_var)


def test_sync_bn_is_a_key_of_training():
    assert Training().sync_bn
    with pytest.raises(PxframeError, match="'sync_bn'"):
        Training(sync_bn="yes")


@pytest.fixture
def second(monkeypatch):
    """What torchrun tells the second of two processes."""
    for name, value in {"LOCAL_RANK": 1, "RANK": 1, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}.items():
        monkeypatch.setenv(name, str(value))


@pytest.mark.parametrize("arguments", [["list"], *([name, "quickstart"] for name in sorted(ALONE))])
def test_a_command_that_cannot_be_shared_refuses_torchrun(second, arguments):
    with pytest.raises(PxframeError, match=r"^this command works in one process: start it without torchrun$"):
        command(arguments)


@pytest.mark.parametrize("name", ["transfer", "prune"])
@pytest.mark.parametrize("grid", [["--jobs", "2"], ["--engine", "ray"]])
def test_a_grid_of_processes_refuses_torchrun(second, name, grid):
    with pytest.raises(PxframeError, match=r"^--jobs and --engine run each stage .*: start it without torchrun$"):
        command([name, "quickstart", *grid])


def test_processes_that_were_not_told_where_the_others_are_say_so(second, monkeypatch):
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(PxframeError, match=r"^cannot meet the other processes .* MASTER_ADDR expected, but not set$"):
        processes.met("cpu")
    assert not ranks.joined()


def test_when_the_notes_are_gone_the_first_process_alone_tells(monkeypatch):
    monkeypatch.setattr(ranks, "_store", object())  # it takes no notes
    assert ranks.first_to_tell()
    monkeypatch.setattr(ranks, "_number", 1)
    assert not ranks.first_to_tell()


def test_processes_with_different_jobs_are_refused(monkeypatch):
    processes.check_agreed({"resume": True}, {"seeds": (0,)})  # one process agrees with itself

    def told(other):
        monkeypatch.setattr(ranks, "gathered_objects", lambda mine: [mine, mine | other])
        processes.check_agreed({"resume": True, "no_plugin": []}, {"seeds": (0,), "work_dir": "work"})

    told({})
    with pytest.raises(PxframeError, match=r"^--resume is another for rank 1 than for rank 0; start all with the same"):
        told({"--resume": "False"})
    with pytest.raises(PxframeError, match=r"^'seeds' in the config is another for rank 1 than for rank 0"):
        told({"'seeds' in the config": "(1,)"})


def test_a_process_is_one_of_several_only_if_it_is_told_its_number(second, monkeypatch):
    assert (processes.count(), processes.number()) == (2, 1)
    monkeypatch.delenv("RANK")
    assert (processes.count(), processes.number()) == (1, 0)


def test_each_process_takes_the_gpu_of_its_own_number(second, monkeypatch):
    joined = []
    monkeypatch.setattr(ranks, "join", joined.append)
    with pytest.raises(PxframeError, match=r"write --device cuda$"):
        processes.met("cuda:0")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(PxframeError, match="2 processes need 2 GPUs, and torch sees 1"):
        processes.met("cuda")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert processes.met("cuda") == "cuda:1"
    assert processes.met("cpu") == "cpu"
    assert joined == ["cuda:1", "cpu"]


def test_only_errors_of_other_processes_name_theirs(second, monkeypatch):
    assert processes.named("it is wrong") == "rank 1: it is wrong"
    assert processes.named("rank 0: it is wrong") == "rank 0: it is wrong"
    monkeypatch.setenv("RANK", "0")
    assert processes.named("it is wrong") == "it is wrong"
