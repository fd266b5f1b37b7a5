"""Jobs in two processes that end early: one line says why, nothing hangs, and ``--resume`` goes on."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from launched import finished, own_lines, started, written

pytestmark = pytest.mark.slow  # starts processes that import torch and train

#: One task, no pre-training that takes long, and enough epochs to be killed in the middle.
SHORT = ("--tasks", "digits", "--cfg-options", "prune.scorer=magnitude", "prune.rounds=1", "tasks.digits.epochs=12")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--cfg-options", "tasks.digits.batch_size=15"), "'batch_size' is 15, which 2 processes cannot share equally"),
        (("--cfg-options", "tasks.digits.bath_size=16"), "'bath_size'"),
        (("--device", "cuda:0"), "write --device cuda"),
        (("--tusks", "digits"), "unrecognized arguments: --tusks"),
    ],
)
def test_a_mistake_is_told_once(tmp_path, arguments, said):
    code, _, err = finished(2, written(tmp_path), "--work-dir", tmp_path / "work", *arguments)
    assert code != 0
    [line] = [line for line in err.splitlines() if said in line]
    assert line.startswith("error: ") or "transfer.py: error: " in line
    assert len(own_lines(err)) == 1
    assert "rank 1" not in line
    assert 'transfer.py", line' not in err  # no traceback of ours
    assert not (tmp_path / "work" / "results.json").exists()


ODD = """
import os
import torch


def loss(output, target):
    if os.environ["RANK"] == "1":
        raise ValueError("this one is odd")
    return torch.nn.functional.cross_entropy(output, target)
"""
TASK = """
tasks = dict(
    digits=dict(
        _digits,
        loss="odd.loss",
        metric=dict(type="torchmetrics.classification.MulticlassAccuracy", num_classes=3, name="share"),
    )
)
"""


def test_an_error_of_the_second_process_alone_is_told_by_it_and_ends_both(tmp_path):
    config = written(tmp_path)
    config.write_text(config.read_text() + TASK)
    (tmp_path / "odd.py").write_text(ODD)
    code, _, err = finished(2, config, "--work-dir", tmp_path / "work")
    assert code != 0
    [line] = own_lines(err)
    assert line.startswith("error: rank 1: tasks.digits: ")
    assert line.endswith("ValueError: this one is odd")


def test_a_job_whose_second_process_is_killed_says_so_once_and_goes_on(tmp_path):
    config = written(tmp_path)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    code, _, err = finished(2, config, "--work-dir", whole, *SHORT)
    assert code == 0, err

    process = started(2, config, "--work-dir", broken, *SHORT)
    run = broken / "seed-0" / "digits" / "magnitude-70.00"
    while not (run / "epoch_2.pth").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    os.kill(_second(process.pid), signal.SIGKILL)
    _, err = process.communicate()
    assert process.returncode != 0
    [line] = own_lines(err)
    assert "--resume" in line
    assert 'transfer.py", line' not in err  # no traceback of ours
    assert not (run / "result.json").exists()

    code, _, err = finished(2, config, "--work-dir", broken, "--resume", *SHORT)
    assert code == 0, err
    states = [torch.load(work / "seed-0/digits/magnitude-70.00/model.pth") for work in (whole, broken)]
    assert all(torch.equal(states[1][name], value) for name, value in states[0].items())


def _second(launcher):
    """The process of rank 1 among the children of the launcher."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            variables = (folder / "environ").read_bytes().split(b"\0")
        except OSError:  # it has ended meanwhile
            continue
        if parent == launcher and b"RANK=1" in variables:
            return int(folder.name)
    raise AssertionError("there is no rank 1")


WAITING = """
import signal
import sys
from pxframe.base import ranks
from pxframe_tools import processes

signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))  # as the commands do
join = ranks.join


def told(device):
    open(sys.argv[1], "w").close()
    join(device)


ranks.join = told
processes.met("cpu")
"""


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_process_that_waits_for_others_in_vain_can_be_stopped(tmp_path, how):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])  # nobody listens there afterwards
    others = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2"}
    reached = tmp_path / "reached"
    with subprocess.Popen([sys.executable, "-c", WAITING, reached], env={**os.environ, **others}) as waiting:
        while not reached.exists():
            time.sleep(0.1)
        time.sleep(3)  # torch is imported, and looks for rank 0
        assert waiting.poll() is None
        waiting.send_signal(how)
        assert waiting.wait(timeout=20) == -how
