"""Folders of data that a function writes once."""

import subprocess
import sys
from pathlib import Path

import pytest
from refusal import refused

from pxframe.files.prepared import prepare_once


@pytest.fixture(autouse=True)
def somewhere(tmp_path, monkeypatch):
    monkeypatch.setenv("SOMEWHERE", str(tmp_path / "data"))
    (tmp_path / "data").mkdir()


calls = []


def write(root, text="x", fail=False):
    calls.append(text)
    (Path(root) / "file").write_text(text)
    if fail:
        raise KeyboardInterrupt


def config(**options):
    return {"type": f"{__name__}.write", "root": "$SOMEWHERE/made", **options}


def test_prepare_writes_once(tmp_path):
    calls.clear()
    root = prepare_once(config(), "task: 'prepare'")
    assert root == tmp_path / "data" / "made"
    assert (root / "file").read_text() == "x"
    prepare_once(config(), "task: 'prepare'")
    assert calls == ["x"]
    refused(lambda: prepare_once(config(text="y"), "task: 'prepare'"), "task: 'prepare'", "not written by this config")
    assert (root / "file").read_text() == "x"


def test_prepare_does_not_take_half_for_whole(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        prepare_once(config(fail=True), "here")
    assert not list((tmp_path / "data").iterdir())
    assert (prepare_once(config(), "here") / "file").exists()


def test_prepare_leaves_other_folders_alone(tmp_path):
    (tmp_path / "data" / "made").mkdir()
    refused(lambda: prepare_once(config(), "here"), "not written by this config")


def test_prepare_names_what_is_wrong():
    refused(lambda: prepare_once(config(colour=1), "here"), "here", "colour")
    refused(lambda: prepare_once({"type": "no.such.function", "root": "x"}, "here"), "here", "no.such.function")
    refused(lambda: prepare_once({"root": "x"}, "here"), "here", "None")
    refused(lambda: prepare_once({"type": f"{__name__}.write"}, "here"), "'root'")


def test_prepare_turns_failures_into_one_line(tmp_path):
    refused(lambda: prepare_once(config(text=3), "here"), "here", "write", "TypeError")
    refused(lambda: prepare_once(config(text={1, 2}), "here"), "here", "plain values")
    assert not list((tmp_path / "data").iterdir())


PREPARER = """
import sys, time
from pxframe.files.scratch import new_folder
from pathlib import Path
with new_folder(Path(sys.argv[1])) as part:
    (part / "half").write_text("half")
    print("ready", flush=True)
    time.sleep(600)
"""


def test_a_folder_of_a_killed_process_goes_at_the_next_writing(tmp_path):
    target = tmp_path / "data" / "made"
    command = [sys.executable, "-c", PREPARER, str(target)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "ready\n"
    finally:
        process.kill()
        process.communicate()
    assert len(list((tmp_path / "data").iterdir())) == 1
    prepare_once(config(), "here")
    assert [p.name for p in (tmp_path / "data").iterdir()] == ["made"]
