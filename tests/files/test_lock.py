"""One owner of a folder at a time, whatever way the last one ended."""

import os
import socket
import subprocess
import sys
import threading

import pytest

from pxframe.base.errors import PxframeError
from pxframe.files.lock import OWNER, owned, waiting

HOLDER = """
import sys, time
from pxframe.files.lock import owned
with owned(sys.argv[1]):
    print("ready", flush=True)
    sys.stdin.readline()
"""


def start(folder):
    command = [sys.executable, "-c", HOLDER, str(folder)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def holder(tmp_path):
    """A process that owns a folder until it is told to end."""
    process = start(tmp_path / "work")
    assert process.stdout.readline() == "ready\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_process_is_told_who_owns_the_folder(holder, tmp_path):
    with pytest.raises(PxframeError) as error, owned(tmp_path / "work"):
        pass
    text = str(error.value)
    assert "\n" not in text
    for part in (str(tmp_path / "work"), f"process {holder.pid} on {socket.gethostname()}", "started 2"):
        assert part in text, text
    with owned(tmp_path / "other"):
        pass


def test_it_is_free_when_the_owner_ends(holder, tmp_path):
    holder.communicate("\n")
    with owned(tmp_path / "work"):
        pass
    assert not (tmp_path / "work" / OWNER).exists()


def test_a_killed_owner_leaves_it_free(holder, tmp_path):
    holder.kill()
    holder.wait()
    assert (tmp_path / "work" / OWNER).exists()
    with owned(tmp_path / "work"):
        assert f'"pid": {os.getpid()}' in (tmp_path / "work" / OWNER).read_text()
        second = start(tmp_path / "work")
        _, errors = second.communicate()
        assert second.returncode == 1
        assert f"in use by process {os.getpid()} on" in errors


def test_the_same_process_owns_it_once(tmp_path):
    with owned(tmp_path):
        with pytest.raises(PxframeError, match=f"in use by process {os.getpid()}"), owned(tmp_path):
            pass
        assert (tmp_path / OWNER).exists()  # the refused one took nothing away


@pytest.mark.slow
@pytest.mark.parametrize("content", ["", "{", "[]", "{}"])
def test_an_owner_who_is_not_known(content, holder, tmp_path):
    (tmp_path / "work" / OWNER).write_text(content)
    with pytest.raises(PxframeError, match="in use by another process"), owned(tmp_path / "work"):
        pass


@pytest.mark.parametrize("name", ["a\0b", "n" * 300, "file"])
def test_folders_that_cannot_be(name, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PxframeError, match="cannot lock") as error, owned(tmp_path / name):
        pass
    assert "\n" not in str(error.value)


def test_a_lock_that_is_held_is_waited_for_and_told_of_once(tmp_path):
    file, order, waits = tmp_path / "logs" / "cell.lock", [], threading.Event()

    def say(line):
        order.append(line)
        waits.set()

    def second():
        with waiting(file, say):
            order.append("second")

    with waiting(file, order.append):
        thread = threading.Thread(target=second)
        thread.start()
        assert waits.wait(60)
        order.append("first")
    thread.join()
    assert order == [f"another process holds {str(file)!r}; waiting until it ends", "first", "second"]
    with pytest.raises(PxframeError, match="cannot lock"), waiting(tmp_path / ("n" * 300), print):
        pass
