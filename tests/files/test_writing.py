"""Files are there whole or not at all: after a crash, on a full disk, and when they are read back damaged."""

import errno
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from refusal import refused
from safetensors.torch import save_file

from pxframe.files.writing import read_json, replacing, set_aside, write_json


def test_the_disk_holds_the_file_before_its_name_and_the_name_before_the_end(tmp_path, monkeypatch):
    events = []
    real_sync, real_replace = os.fsync, os.replace

    def fsync(handle):
        path = Path(os.readlink(f"/proc/self/fd/{handle}"))
        events.append("sync folder" if path.is_dir() else f"sync file of {path.stat().st_size} bytes")
        real_sync(handle)

    def replace(old, new):
        events.append("rename")
        real_replace(old, new)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    with replacing(tmp_path / "x") as part:
        part.write_text("12345")
    assert events == ["sync file of 5 bytes", "rename", "sync folder"]


def test_permissions_follow_the_umask(tmp_path):
    old = os.umask(0o027)
    try:
        write_json(tmp_path / "x", {})
    finally:
        os.umask(old)
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o640


def full(part):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_is_one_line_and_keeps_the_old_file(tmp_path, monkeypatch):
    (tmp_path / "x").write_text("old")

    def write():
        with replacing(tmp_path / "x") as part:
            part.write_text("new")
            full(part)

    refused(write, "cannot write", str(tmp_path / "x"), "No space left on device")
    assert (tmp_path / "x").read_text() == "old"
    assert os.listdir(tmp_path) == ["x"]
    monkeypatch.setattr(os, "fsync", full)  # the last moment at which a disk may say so
    refused(lambda: write_json(tmp_path / "x", {}), "No space left on device")
    assert (tmp_path / "x").read_text() == "old"
    assert os.listdir(tmp_path) == ["x"]


LIBRARIES = {
    "python": lambda path: path.write_bytes(bytes(2**17)),
    "torch": lambda path: torch.save(torch.zeros(2**15), path),
    "safetensors": lambda path: save_file({"x": torch.zeros(2**15)}, path),
}


@pytest.mark.parametrize("library", LIBRARIES)
def test_libraries_that_cannot_write_on_are_one_line(library, tmp_path):
    """A limit on the size of files stands in for a full disk: the kernel refuses to write beyond it."""

    def write():
        with replacing(tmp_path / "x") as part:
            LIBRARIES[library](part)

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**14, hard))
    try:
        refused(write, "cannot write", str(tmp_path / "x"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert os.listdir(tmp_path) == []


def test_other_errors_of_the_block_stay_as_they_are(tmp_path):
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "x"):
        Path(tmp_path / "no such input").read_text()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["x\0y", "n" * 300, "taken"])
def test_names_that_cannot_be_written(name, tmp_path):
    (tmp_path / "taken").mkdir()
    refused(lambda: write_json(tmp_path / name, {}), "cannot write")
    assert os.listdir(tmp_path) == ["taken"]


def test_a_name_in_any_script(tmp_path):
    path = tmp_path / "Größe 数据 [1]" / "α*.json"
    write_json(path, {"ß": 1})
    assert read_json(path) == {"ß": 1}


WRITER = """
import sys, time
from pxframe.files.writing import replacing
with replacing(sys.argv[1]) as part:
    part.write_text("half")
    print("ready", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def writer(tmp_path):
    """A process in the middle of writing ``x``."""
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path / "x")], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_scratch_of_a_killed_process_goes_at_the_next_writing(writer, tmp_path):
    (tmp_path / ".xy.12345678.part").write_text("another file's")
    write_json(tmp_path / "x", {})
    assert len(list(tmp_path.glob(".x.*.part"))) == 1  # its owner lives
    writer.kill()
    writer.wait()
    write_json(tmp_path / "x", {})
    assert sorted(os.listdir(tmp_path)) == [".xy.12345678.part", "x"]


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"", "empty"),
        (b"\0\0\0\0", "empty"),
        (b'{"a": [1, 2', "line 1"),
        (b"\xff\xfe\x00", "not text"),
        (b"[1]", "list"),
        (b"null", "NoneType"),
        (b"[" * 100_000, "damaged"),
    ],
)
def test_damaged_json(content, cause, tmp_path):
    (tmp_path / "x.json").write_bytes(content)
    refused(lambda: read_json(tmp_path / "x.json"), str(tmp_path / "x.json"), "is damaged", cause, "restore or remove")


def test_json_that_is_not_there(tmp_path):
    refused(lambda: read_json(tmp_path / "x.json"), "there is no file", str(tmp_path / "x.json"))
    refused(lambda: read_json(tmp_path), "cannot read", str(tmp_path))
    refused(lambda: read_json("a\0b"), "cannot read")


def test_json_is_read_as_written(tmp_path):
    value = {"b": [1, None, "é"], "a": {"c": 0.1}}
    write_json(tmp_path / "x.json", value)
    assert read_json(tmp_path / "x.json") == value
    assert list(json.loads((tmp_path / "x.json").read_text())) == ["a", "b"]


def test_set_aside_keeps_everything(tmp_path):
    for text in ("first", "second", "third"):
        (tmp_path / "seed-0").mkdir(exist_ok=True)
        (tmp_path / "seed-0" / "row.json").write_text(text)
        place = set_aside(tmp_path / "seed-0" / "row.json", tmp_path)
        assert place.read_text() == text
        assert not (tmp_path / "seed-0" / "row.json").exists()
    aside = tmp_path / "set-aside" / "seed-0"
    assert {p.name: p.read_text() for p in aside.iterdir()} == {
        "row.json": "first", "row.json.1": "second", "row.json.2": "third",
    }  # fmt: skip
    (tmp_path / "seed-0" / "other").write_text("fourth")
    place = set_aside(tmp_path / "seed-0", tmp_path)
    assert place == tmp_path / "set-aside" / "seed-0.1"
    assert (place / "other").read_text() == "fourth"
    assert len(list(aside.iterdir())) == 3


def test_what_cannot_be_set_aside(tmp_path):
    root = tmp_path / "root"
    (root / "set-aside" / "x").mkdir(parents=True)
    (tmp_path / "outside").write_text("")
    for path in (tmp_path / "outside", root, root / "set-aside", root / "set-aside" / "x"):
        refused(lambda path=path: set_aside(path, root), "must lie in")
    refused(lambda: set_aside(root / "missing", root), "there is no such")
