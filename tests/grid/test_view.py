"""The view: a line a cell where nobody watches, a picture on a terminal."""

import io

import pytest
from rich.console import Console

from pxframe.grid import view as module
from pxframe.grid.cells import Cell
from pxframe.grid.schedule import Schedule
from pxframe.grid.view import View, duration

TICKET, *TRAINED = Cell("ticket", 0, None, "px"), *(Cell("train", 0, f"[b]{i}", "px") for i in range(3))


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def schedule():
    return Schedule({TICKET: (), **{cell: (TICKET,) for cell in TRAINED}}, 1)


def test_a_line_a_cell(schedule, clock, capsys, tmp_path):
    with View(schedule, 2) as view:
        schedule.done(TICKET)
        view.finished_before(TICKET)
        for cell in TRAINED[:2]:
            schedule.started(cell)
            view.started(cell)
        schedule.done(TRAINED[0])
        view.done(TRAINED[0], 60.0)
        again = schedule.failed(TRAINED[1])
        view.failed(TRAINED[1], "exit code 2", tmp_path / "log", ["one", "two"], again)
        again = schedule.failed(TRAINED[1])
        view.failed(TRAINED[1], "exit code 2", tmp_path / "log", [], again)
    assert capsys.readouterr().out.splitlines() == [
        "[1/4] seed-0/tickets/px: finished before",
        "[2/4] seed-0/[b]0/px: done in 60 s; about 60 s left",
        f"[2/4] seed-0/[b]1/px: failed, exit code 2; tried again; the last lines of {tmp_path / 'log'}:",
        "    one",
        "    two",
        f"[2/4] seed-0/[b]1/px: failed, exit code 2; given up after 2 attempts; the last lines of {tmp_path / 'log'}:",
        "    (it printed nothing)",
    ]


def test_the_time_left_is_that_of_cells_alike(schedule, clock):
    view = View(schedule, 1)
    assert view.time_left() == ""
    schedule.done(TICKET)
    view.done(TICKET, 1000.0)
    schedule.done(TRAINED[0])
    view.done(TRAINED[0], 100.0)
    view.started(TRAINED[1])
    schedule.started(TRAINED[1])
    clock[0] = 40.0
    assert view.time_left() == "about 3 min"  # 60 s of the one that runs, 100 s of the other


def test_a_cell_that_a_cluster_holds_back_begins_when_another_ends(schedule, clock):
    view = View(schedule, 1)
    schedule.done(TICKET)
    for cell in TRAINED:
        schedule.started(cell)
        view.started(cell)
    clock[0] = 100.0
    schedule.done(TRAINED[0])
    view.done(TRAINED[0], 100.0)
    clock[0] = 120.0
    assert view.time_left() == "about 3 min"  # 80 s of the one that began 20 s ago, 100 s of the last


def test_the_picture_names_what_runs(schedule, clock):
    view = View(schedule, 2)
    out = io.StringIO()
    view._console = Console(file=out, force_terminal=True, width=100, color_system=None, markup=False)
    with view:
        schedule.started(TICKET)
        view.started(TICKET)
        clock[0] = 5.0
        view._live.refresh()
        view.say("a line [b]above[/b] it")
    printed = out.getvalue()
    for text in ("0 of 4 done, 1 running, 0 failed", "seed-0/tickets/px", "5 s", "a line [b]above[/b] it"):
        assert text in printed


@pytest.mark.parametrize(
    ("seconds", "text"), [(3.4, "3 s"), (89, "89 s"), (90, "2 min"), (3600, "60 min"), (7500, "2 h 5 min")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text
