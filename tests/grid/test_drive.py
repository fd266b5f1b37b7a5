"""A grid of real cells, run in this process: each is done as a process of its own would do it, from files alone."""

import argparse
import re
from concurrent.futures import Future
from pathlib import Path

import pytest
from grid_jobs import rows, write

from pxframe.grid import local
from pxframe.grid.leash import Ended
from pxframe.stages import runs, trainer
from pxframe_tools import cell, cli, common

started = []


class Here:
    """An engine for tests: runs a cell at once, in this process; an exception is an exit code, as of a process."""

    queues = False

    def __init__(self, jobs):
        self.width = jobs
        started.clear()

    def submit(self, command, env, log, gpus):
        module, file, option, name = command[1:]
        assert (module, option) == ("pxframe_tools.cell", "--cell")
        started.append(name)
        log.parent.mkdir(parents=True, exist_ok=True)
        future = Future()
        try:
            code = cell.run(argparse.Namespace(file=file, cell=name))
        except Exception as error:
            with log.open("a") as file:
                file.write(f"error: {error}\n")
            code = 1
        future.set_result(Ended(code, 1.0))
        return future

    def stop(self):
        pass


@pytest.fixture
def run(tmp_path, monkeypatch, capsys, no_report):
    """``run(work, *arguments, code=0)`` gives the cells started and what was printed."""
    monkeypatch.setattr(local, "Local", Here)
    monkeypatch.chdir(tmp_path)

    def run(config, work, *arguments, code=0, command="transfer"):
        started.clear()
        got = cli.main([command, config, "--work-dir", str(tmp_path / work), *arguments])
        printed = "".join(capsys.readouterr())
        assert got == code, printed
        return started[:], printed

    return run


def test_a_grid_gives_what_one_process_gives_and_starts_nothing_that_is_finished(run, tmp_path, monkeypatch):
    config = write(tmp_path, ("epochs=2", "epochs=1"))
    run(config, "one")
    cells, printed = run(config, "many", "--jobs", "2")
    assert rows(tmp_path / "many") == rows(tmp_path / "one")
    assert len(cells) == len(set(cells)) == 1 + 2
    assert "[3/3] seed-0/b/magnitude-80.00: done in 1 s" in printed  # as this engine says, not the clock
    assert (tmp_path / "many" / "report.html").exists()

    with monkeypatch.context() as patch:
        patch.setattr(runs, "train", lambda *_, **__: pytest.fail("it was finished"))
        assert run(config, "many", "--jobs", "2", "--resume")[0] == []
        assert run(config, "one", "--jobs", "2", "--resume")[0] == []  # what one process began
        run(config, "many", "--resume")  # and the other way round

    more = write(tmp_path, ("b=_digits([7, 8])", "b=_digits([7, 8], epochs=3)"), ("epochs=2", "epochs=1"))
    cells, printed = run(more, "many", "--jobs", "1", "--resume")
    assert cells == ["seed-0/b/magnitude-80.00"]
    assert printed.count("seed-0/b/magnitude-80.00: task.epochs was 1, now 3; made again") == 1


SHAPES = {
    "whole models": [
        (", data=_digits([0, 1, 2], head=None))", ', whole=True, controls=["random"])'),
        ("controls=[], ", ""),
    ],
    "weights of tickets": [
        ("backbone = ", 'pretrain = _digits([0, 1, 2], head=None)\ntransfer = "mask+weights"\nbackbone = '),
        ("controls=[]", 'controls=["dense"]'),
    ],
    "seeds, levels and refits": [
        ("backbone = ", "seed = [4, 1]\nbackbone = "),
        ('scorer="magnitude"', 'scorer=["snip", dict(type="snip", refit="bn")]'),
        ("sparsity=0.8", "sparsity=[0.5, 0.8]"),
        ("tasks = dict(a=_digits([3, 4, 5, 6]), ", "tasks = dict("),
    ],
    "a given ticket": [("controls=[]", 'controls=["random", "dense"]')],
}


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
def test_a_grid_of_every_shape_gives_what_one_process_gives(run, tmp_path, shape):
    arguments = []
    if shape == "a given ticket":
        run(write(tmp_path), "earlier", command="prune")
        (ticket,) = (tmp_path / "earlier").rglob("*.safetensors")
        arguments = ["--ticket", str(ticket.rename(tmp_path / "mine.safetensors"))]
    config = write(tmp_path, ("epochs=2", "epochs=1"), *SHAPES[shape])
    run(config, "one", *arguments)
    cells, printed = run(config, "many", "--jobs", "1", *arguments)
    assert rows(tmp_path / "many") == rows(tmp_path / "one")
    assert len(cells) == len(set(cells))
    assert "failed" not in printed
    assert run(config, "one", "--jobs", "1", "--resume", *arguments)[0] == []


def test_a_cell_that_fails_leaves_the_others_alone_and_its_log_is_shown(run, tmp_path, monkeypatch):
    config = write(tmp_path, ("epochs=2", "epochs=1"))
    original, failures = runs.train, []

    def train(setting, title, *args, **kwargs):
        if title.startswith("a "):
            failures.append(title)
            raise RuntimeError("no space in the attic")
        return original(setting, title, *args, **kwargs)

    monkeypatch.setattr(runs, "train", train)
    cells, printed = run(config, "work", "--jobs", "1", "--retries", "2", code=1)
    assert len(failures) == 3
    assert cells.count("seed-0/a/magnitude-80.00") == 3
    log = tmp_path / "work" / "logs" / "seed-0" / "a" / "magnitude-80.00.log"
    assert printed.count(f"tried again; the last lines of {log}:\n    error: no space in the attic\n") == 2
    assert f"missing: seed-0/a/magnitude-80.00: failed; see {log}" in printed
    assert [row["task"] for row in rows(tmp_path / "work")] == ["b"]
    monkeypatch.setattr(runs, "train", original)
    cells, _ = run(config, "work", "--jobs", "1", "--resume")
    assert cells == ["seed-0/a/magnitude-80.00"]
    assert [row["task"] for row in rows(tmp_path / "work")] == ["a", "b"]


def test_what_needs_a_failed_cell_is_named_with_its_log(run, tmp_path, monkeypatch):
    config = write(tmp_path, ('scorer="magnitude"', 'scorer=dict(type="imp", rounds=3)'), ("epochs=2", "epochs=1"))
    trained, original = [], trainer.train_between

    def train_between(*args, **kwargs):
        trained.append(1)
        if len(trained) == 3:
            raise RuntimeError("out of memory")
        return original(*args, **kwargs)

    monkeypatch.setattr(trainer, "train_between", train_between)
    cells, printed = run(config, "work", "--jobs", "1", "--retries", "0", code=1)
    assert cells == ["seed-0/tickets/imp-rounds=3-80.00"]
    log = tmp_path / "work" / "logs" / "seed-0" / "tickets" / "imp-rounds=3-80.00.log"
    needs = "needs seed-0/tickets/imp-rounds=3-80.00, which failed"
    for task in "ab":
        assert f"missing: seed-0/{task}/imp-rounds=3-80.00: {needs}; see {log}" in printed
    # The two rounds that were finished are not trained again.
    cells, _ = run(config, "work", "--jobs", "1", "--resume", command="prune")
    assert cells == ["seed-0/tickets/imp-rounds=3-80.00"]
    assert len(trained) == 4


def test_a_config_that_is_edited_meanwhile_is_not_run(run, tmp_path, monkeypatch):
    config = write(tmp_path)
    submit = Here.submit

    def edited(self, *args):
        write(tmp_path, ("epochs=2", "epochs=9"))
        return submit(self, *args)

    monkeypatch.setattr(Here, "submit", edited)
    _, printed = run(config, "work", "--jobs", "1", "--retries", "0", code=1, command="prune")
    assert "was changed since the command was started" in printed
    assert not list((tmp_path / "work").rglob("*.safetensors"))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--retries", "2"], "--retries is for runs that are processes of their own: add --jobs N or --engine ray"),
        (["--jobs", "0"], "--jobs must be at least 1, got 0"),
        (["--jobs", "2", "--retries", "-1"], "--retries must be at least 0, got -1"),
        (["--jobs", "2", "--address", "auto"], "--address is for a Ray cluster: add --engine ray"),
        (["--jobs", "2", "--gpus-per-run", "1"], "--gpus-per-run is for a Ray cluster: add --engine ray"),
        (["--engine", "ray", "--gpus-per-run", "0"], "--gpus-per-run must be above 0, got 0.0"),
        (["--engine", "local"], "--engine local: say how many processes run at a time, with --jobs N"),
        (["--engine", "ray", "--device", "cuda:1"], "--device cuda:1: Ray chooses the GPU of every run"),
    ],
)
def test_arguments_that_do_not_go_together_cost_one_line(run, tmp_path, arguments, text):
    _, printed = run(write(tmp_path), "work", *arguments, code=2)
    assert text in printed
    assert printed.count("\n") == 1


def test_a_cell_is_told_the_command_s_arguments_as_they_were_typed():
    from pxframe_tools.grid import words
    from pxframe_tools.transfer import add_arguments

    typed = ["m.py", "--resume", "--device=cpu", "--work-dir=w", "--ticket=t.safetensors", "--trust-checkpoint"]
    typed += ["--no-plugin=px", "--cfg-options", "seed=3", "tasks.a.mean=(1.0,2.0,3.0)"]
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    first = parser.parse_args(typed)
    assert vars(parser.parse_args(words(first))) == vars(first)
    assert first.cfg_options["tasks.a.mean"] == (1.0, 2.0, 3.0)


@pytest.mark.parametrize(
    ("name", "given", "tasks"),
    [
        ("seed-0/pretrain", False, ["a"]),
        ("seed-0/tickets/px-90.00", False, ["a"]),
        ("seed-0/tickets/b/px-90.00", False, ["b"]),
        ("seed-0/pretrain/b", False, ["a"]),  # a ticket may be called like a task
        ("seed-0/b/a", False, ["b"]),
        ("seed-0/b/a", True, ["a", "b"]),
    ],
)
def test_a_cell_reads_the_data_of_its_own_task(name, given, tasks):
    assert cell.tasks_of(name, ["a", "b"], given) == tasks


def test_processes_share_the_cores(monkeypatch):
    import torch

    before = torch.get_num_threads()
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(common.os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    try:
        assert [common.choose_threads(processes=n) for n in (1, 3, 8, 50)] == [8, 2, 1, 1]
        assert common.choose_threads(earlier=5, processes=2) == 5 == torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


def test_the_guide_s_commands_are_understood(monkeypatch):
    monkeypatch.setattr("pxframe.grid.rays.load_ray", lambda: None)
    from pxframe_tools import prune, transfer
    from pxframe_tools.grid import checked_grid

    text = (Path(__file__).parents[2] / "docs" / "grid.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    for line in block.splitlines():
        name, command, *rest = line.split()
        parser = argparse.ArgumentParser()
        {"transfer": transfer, "prune": prune}[command].add_arguments(parser)
        assert name == "pxframe"
        assert checked_grid(parser.parse_args(rest))
