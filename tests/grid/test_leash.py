"""A command ends with whatever started it, and so does all that it started itself."""

import os
import subprocess
import sys
import threading
import time

import pytest

from pxframe.grid.leash import Leashed

#: Starts a process of its own, says both ids, and stays.
STAYS = """
import os, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(os.getpid(), child.pid, flush=True)
child.wait()
"""
STARTER = f"""
import os, sys
from pathlib import Path
from pxframe.grid.leash import Leashed
Leashed(["-c", {STAYS!r}], os.environ, Path(sys.argv[1])).wait()
"""

pytestmark = pytest.mark.skipif(not os.path.isdir("/proc"), reason="there is no /proc here")


def lives(pid):
    try:
        return open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def until(condition, what):
    """Wait for what must come; a machine may be slow, so the limit is far away."""
    for _ in range(12_000):
        if condition():
            return
        time.sleep(0.01)
    pytest.fail(what)


def pids(log):
    until(lambda: log.exists() and log.read_text().endswith("\n"), "the command did not start")
    return [int(word) for word in log.read_text().split()]


@pytest.mark.parametrize(("code", "expected"), [("pass", 0), ("import sys; sys.exit(7)", 7)])
def test_the_exit_code_and_the_output_are_the_command_s(tmp_path, code, expected):
    log = tmp_path / "deep" / "log"
    for _ in range(2):
        ended = Leashed(["-c", f"import os; print(os.environ['MINE'], flush=True); {code}"], {"MINE": "5"}, log).wait()
        assert ended.code == expected
    assert log.read_text() == "5\n5\n"  # appended


def test_a_signal_is_told_as_a_shell_does(tmp_path):
    code = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    assert Leashed(["-c", code], os.environ, tmp_path / "log").wait().code == 128 + 9


def test_a_killed_starter_takes_all_with_it(tmp_path):
    with subprocess.Popen([sys.executable, "-c", STARTER, str(tmp_path / "log")]) as starter:
        running = pids(tmp_path / "log")
        assert len(running) == 2
        assert all(map(lives, running))
        starter.kill()
    until(lambda: not any(map(lives, running)), "the command outlived its starter")


def test_it_is_stopped_from_another_thread_and_leaves_nothing(tmp_path):
    one = Leashed(["-c", STAYS], os.environ, tmp_path / "log")
    codes = []
    waiting = threading.Thread(target=lambda: codes.append(one.wait().code))
    waiting.start()
    running = pids(tmp_path / "log")
    one.stop()
    waiting.join()
    assert codes == [128 + 15]
    until(lambda: not any(map(lives, running)), "something was left behind")


def test_what_a_command_leaves_behind_ends_with_it(tmp_path):
    code = STAYS.replace("child.wait()", "sys.exit(3)")
    assert Leashed(["-c", code], os.environ, tmp_path / "log").wait().code == 3
    until(lambda: not any(map(lives, pids(tmp_path / "log"))), "something was left behind")
