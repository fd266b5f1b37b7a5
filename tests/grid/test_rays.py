"""A real Ray cluster on this machine: a worker is killed while it trains, and the results are those of one process."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from grid_jobs import rows, write

from pxframe.base.errors import PxframeError
from pxframe.grid import rays
from pxframe_tools import cli

COMMAND = [sys.executable, "-m", "pxframe_tools.cli", "transfer"]


def test_without_ray_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(PxframeError, match=r"^--engine ray needs Ray: pip install pxframe\[ray\]$"):
        rays.load_ray()


def test_it_is_said_before_work_begins(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    arguments = ["transfer", write(tmp_path), "--work-dir", str(tmp_path / "work"), "--engine", "ray"]
    assert cli.main(arguments) == 2
    assert "".join(capsys.readouterr()) == "error: --engine ray needs Ray: pip install pxframe[ray]\n"


def parent(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def line(pid):
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()


def cell_of(work, name):
    """The process that does a cell, or None: the one whose parent leads its group."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = line(folder.name)
            if f"--cell {name}" in words and str(work) in words and "pxframe.grid.leash" not in words:
                return int(folder.name)
        except OSError:
            continue
    return None


@pytest.mark.slow
@pytest.mark.alone
def test_a_worker_killed_while_it_trains(tmp_path):
    pytest.importorskip("ray", reason="ray is not installed: pip install pxframe[ray]")
    config = write(tmp_path, ("epochs=2", "epochs=8"))
    # Ray starts its workers at the lowest priority: on a machine with other work to do they would hardly move.
    env = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_worker_niceness": "0"}
    one = subprocess.run([*COMMAND, config, "--work-dir", str(tmp_path / "one")], env=env, capture_output=True)
    assert one.returncode == 0, one.stderr
    work = tmp_path / "many"
    arguments = ["--work-dir", str(work), "--engine", "ray", "--jobs", "2", "--retries", "1"]
    with subprocess.Popen([*COMMAND, config, *arguments], env=env, stdout=subprocess.PIPE, text=True) as driver:
        running = work / "seed-0" / "a" / "magnitude-80.00"
        while not (list(running.glob("epoch_*.pth")) or driver.poll() is not None):
            time.sleep(0.01)
        cell = cell_of(work, "seed-0/a/magnitude-80.00")
        assert cell is not None
        worker = parent(parent(cell))
        assert line(worker).startswith("ray::run"), line(worker)
        os.kill(worker, signal.SIGKILL)
        while cell_of(work, "seed-0/a/magnitude-80.00") == cell:  # the test is stopped if it never ends
            time.sleep(0.01)
        printed = driver.communicate()[0]
    assert driver.returncode == 0, printed
    assert printed.count("failed, what ran it was lost") == 1
    assert printed.count(": done in ") == 3
    assert rows(work) == rows(tmp_path / "one")
    log = (work / "logs" / "seed-0" / "a" / "magnitude-80.00.log").read_text()
    assert log.count("a, magnitude-80.00: ") == 1  # done once
    assert (running / "train.log").read_text().count("epoch 1/8") == 1  # the second attempt went on with the first
