"""Real processes on this machine: equal to the bit, tried again, killed with their driver, and gone on with."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from grid_jobs import rows, write

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not os.path.isdir("/proc"), reason="there is no /proc here"),
]
#: A data set that ends its process in a cell: always, or the first time.
FRAGILE = """
import os, sys
from pathlib import Path
from torchvision.datasets import ImageFolder

class Fragile(ImageFolder):
    def __init__(self, root, mark, **more):
        super().__init__(root, **more)
        mark = Path(mark)
        if "--cell" in sys.argv and not mark.exists():
            if mark.stem == "once":
                mark.touch()
            print("I am fragile", flush=True)
            os._exit(9)
"""


def command(config, work, *arguments):
    return [sys.executable, "-m", "pxframe_tools.cli", "transfer", config, "--work-dir", str(work), *arguments]


def run(config, work, *arguments):
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command(config, work, *arguments), env=env, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def of_cells(work):
    """The processes of cells of this work folder, by id, with their command lines."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if "pxframe_tools.cell" in line and str(work) in line:
            found[int(folder.name)] = line
    return found


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The config, and the rows that one process gives."""
    folder = tmp_path_factory.mktemp("grid")
    (folder / "fragile.py").write_text(FRAGILE)
    fragile = (
        'tasks = dict(b=_digits([7, 8]), once=_fragile("once"), never=_fragile("never"))\n\n\n'
        "def _fragile(mark):\n    task = _digits([7, 8])\n"
        f"    task['data']['train'].update(type='fragile.Fragile', mark='{folder}/' + mark)\n    return task\n"
    )
    tasks, code = fragile.split("\n\n\n")
    config = write(folder, ("tasks = dict(a=_digits([3, 4, 5, 6]), b=_digits([7, 8]))", f"{code}\n{tasks}"))
    done, printed = run(config, folder / "one")
    assert done == 0, printed
    return folder, config, rows(folder / "one")


def test_equal_to_one_process_with_one_cell_tried_again_and_one_given_up(reference):
    folder, config, expected = reference
    for mark in ("once", "never"):
        (folder / mark).unlink(missing_ok=True)
    code, printed = run(config, folder / "many", "--jobs", "2")
    assert code == 1, printed
    assert printed.count("seed-0/once/magnitude-80.00: failed, exit code 9; tried again") == 1
    assert printed.count("seed-0/never/magnitude-80.00: failed, exit code 9; tried again") == 1
    assert printed.count("seed-0/never/magnitude-80.00: failed, exit code 9; given up after 2 attempts") == 1
    assert printed.count("    I am fragile\n") == 3
    log = folder / "many" / "logs" / "seed-0" / "never" / "magnitude-80.00.log"
    assert f"missing: seed-0/never/magnitude-80.00: failed; see {log}" in printed
    assert rows(folder / "many") == [row for row in expected if row["task"] != "never"]
    (folder / "never").touch()
    code, printed = run(config, folder / "many", "--jobs", "2", "--resume")
    assert code == 0, printed
    assert rows(folder / "many") == expected
    assert not (folder / "many" / "set-aside").exists()


def test_a_killed_driver_takes_its_cells_along_and_the_same_command_goes_on(reference):
    folder, config, expected = reference
    for mark in ("once", "never"):
        (folder / mark).touch()
    work = folder / "killed"
    with subprocess.Popen(command(config, work, "--jobs", "2"), stdout=subprocess.DEVNULL) as driver:
        while not (list(work.glob("seed-0/*/*/recipe.json")) or driver.poll() is not None):
            time.sleep(0.01)
        assert of_cells(work)
        driver.kill()
    while of_cells(work):  # the test is stopped if they never end
        time.sleep(0.05)
    assert not (work / "results.json").exists()
    code, printed = run(config, work, "--jobs", "2", "--resume")
    assert code == 0, printed
    assert "finished before" in printed
    assert rows(work) == expected


def test_an_interrupt_ends_the_cells_and_says_how_to_go_on(reference):
    folder, config, _ = reference
    work = folder / "interrupted"
    driving = subprocess.Popen(
        command(config, work, "--jobs", "2"), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    with driving as driver:
        while not (of_cells(work) or driver.poll() is not None):
            time.sleep(0.01)
        driver.send_signal(signal.SIGINT)
        errors = driver.communicate()[1]
    assert driver.returncode == 130
    assert errors == "stopped; the same command with --resume goes on from here\n"
    assert not of_cells(work)


def test_a_cell_that_another_process_is_at_is_waited_for_and_not_done_twice(reference):
    folder, config, expected = reference
    work = folder / "waiting"
    code, printed = run(config, work, "--jobs", "2", "--tasks", "b")
    assert code == 0, printed
    lock = work / "logs" / "seed-0" / "b" / "magnitude-80.00.lock"
    holds = (
        "import sys; from pxframe.files.lock import waiting\n"
        f"with waiting({str(lock)!r}, print): print('held', flush=True); sys.stdin.readline()"
    )
    cell = [sys.executable, "-m", "pxframe_tools.cell", str(work / "grid.json"), "--cell", "seed-0/b/magnitude-80.00"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    before = (work / "seed-0" / "b" / "magnitude-80.00" / "result.json").stat().st_mtime_ns
    with subprocess.Popen([sys.executable, "-c", holds], **pipes) as holder:
        assert holder.stdout.readline() == "held\n"
        with subprocess.Popen(cell, **pipes) as second:
            assert "checking" in second.stdout.readline()
            assert f"another process holds {str(lock)!r}; waiting until it ends" in second.stdout.readline()
            assert second.poll() is None
            holder.communicate("\n")
            rest, _ = second.communicate()
    assert (second.returncode, rest) == (0, "")
    assert (work / "seed-0" / "b" / "magnitude-80.00" / "result.json").stat().st_mtime_ns == before
    assert rows(work) == expected[:1]
