"""What is told at once: mistakes that need no torch, and that work has begun."""

import subprocess
import sys
from pathlib import Path

import pytest

from pxframe.base.errors import PxframeError
from pxframe.job.places import check_folder, find_config
from pxframe_tools import cli

#: Runs a command, and says whether torch was imported in it.
WATCHED = """
import sys
from pxframe_tools import cli
try:
    code = cli.main()
except SystemExit as stop:
    code = stop.code
print("torch was imported" if "torch" in sys.modules else "torch was not imported", file=sys.stderr)
sys.exit(code)
"""
CONFIG = "configs/quickstart.py"
MISTAKES = {
    "no such config": (["transfer", "nowhere/nothing.py"], "there is no config 'nowhere/nothing.py'"),
    "a folder": (["transfer", "configs"], "'configs' is a folder; name a config file in it"),
    "no Python": (["prune", "README.md"], "'README.md' is no config: a config is a Python file"),
    "option": (["transfer", CONFIG, "--resumed"], "unrecognized arguments: --resumed"),
    "a key as an option": (
        ["prune", CONFIG, "--sparsity", "90"],
        "'sparsity' is set in the config, or by --cfg-options prune.sparsity=90",
    ),
    "a key with a sign": (["transfer", CONFIG, "--rounds=3"], "or by --cfg-options prune.rounds=3"),
    "override": (["transfer", CONFIG, "--cfg-options", "seed"], "cannot read 'seed' as KEY=VALUE"),
    "key": (["prune", CONFIG, "--cfg-options", "sede=1"], "there is no key 'sede'; did you mean 'seed'"),
    "task": (
        ["transfer", CONFIG, "--tasks", "digit", "--work-dir", "work_dirs/of_no_job"],  # the usual one may be there
        "there is no task 'digit' in the config; did you mean 'digits'",
    ),
    "work dir in a file": (["prune", CONFIG, "--work-dir", "README.md/x"], "cannot write in README.md/x: "),
    "the config's work dir": (["prune", CONFIG, "--cfg-options", "work_dir=README.md/x"], "cannot write in README"),
    "full work dir": (["transfer", CONFIG, "--work-dir", "tests"], "tests is not empty: add --resume"),
    "no ticket": (["transfer", CONFIG, "--ticket", "nowhere"], "cannot read ticket nowhere: No such file"),
    "nothing to show": (["show", "nowhere"], "cannot read ticket nowhere: No such file"),
    "nothing to slim": (["slim", "nowhere"], "cannot read ticket nowhere: No such file"),
    "nothing to report": (["report", "nowhere"], "there is no folder 'nowhere'; name a job's work folder"),
    "no command": ([], "transfer  make the tickets of a job and train every task with each"),
    "unknown command": (["transfr"], "invalid choice: 'transfr'"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_told_before_torch_is_imported(name):
    arguments, text = MISTAKES[name]
    done = subprocess.run([sys.executable, "-c", WATCHED, *arguments], capture_output=True, text=True)
    assert done.returncode == 2
    assert text in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.endswith("torch was not imported\n")


@pytest.mark.parametrize("script", ["transfer.py", "prune.py", "show.py", "report.py", "slim.py", "bench.py"])
def test_a_script_is_as_quick(script):
    code = f"import sys; sys.argv = ['{script}', 'nowhere']; "
    code += f"import runpy; runpy.run_path('tools/{script}', run_name='__main__')"
    done = subprocess.run([sys.executable, "-X", "importtime", "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert "error: " in done.stderr
    assert "torch" not in {line.split("|")[-1].strip() for line in done.stderr.splitlines()}


def test_a_job_says_at_once_what_it_does(capsys, monkeypatch):
    monkeypatch.setattr("pxframe.job.config.load_config", lambda *_: 1 / 0)  # what comes next
    with pytest.raises(ZeroDivisionError):
        cli.main(["prune", "quickstart", "--work-dir", "work_dirs/none"])
    assert capsys.readouterr().out == f"checking {find_config('quickstart')} before work begins\n"


def test_every_command_is_in_the_list(capsys):
    assert cli.main([]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert [line.split()[0] for line in shown.err.splitlines() if line.startswith("    ")] == [
        *("list", "show", "prune", "transfer", "report", "slim", "bench", "spectrum", "width", "timing")
    ]


def test_the_check_of_a_folder_leaves_nothing(tmp_path):
    check_folder(tmp_path / "a" / "b", resume=False)
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("")
    with pytest.raises(PxframeError, match="is not empty"):
        check_folder(tmp_path, resume=False)
    check_folder(tmp_path, resume=True)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    with pytest.raises(PxframeError, match=r"cannot write in .*file: Not a directory; choose another --work-dir"):
        check_folder(tmp_path / "file", resume=True)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="there is no /proc here")
def test_a_folder_that_nobody_can_write_is_refused():
    with pytest.raises(PxframeError, match="cannot write in /proc/x"):
        check_folder(Path("/proc/x"), resume=False)
