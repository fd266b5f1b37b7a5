"""The account of a grid: order, retries, lost hosts, and what is missing in the end."""

import pytest

from pxframe.grid.cells import Cell
from pxframe.grid.schedule import MOST_DEATHS, Schedule

FIRST, LEFT, RIGHT = Cell("pretrain", 0), Cell("ticket", 0, None, "l"), Cell("ticket", 0, None, "r")
LAST = Cell("train", 0, "a", "l")
CELLS = {FIRST: (), LEFT: (FIRST,), RIGHT: (FIRST,), LAST: (LEFT,)}


def started(schedule):
    found = []
    while (cell := schedule.ready()) is not None:
        schedule.started(cell)
        found.append(cell)
    return found


def test_a_cell_is_ready_when_all_that_it_needs_is_done():
    schedule = Schedule(CELLS, 0)
    assert started(schedule) == [FIRST]
    schedule.done(FIRST)
    assert started(schedule) == [LEFT, RIGHT]
    schedule.done(RIGHT)
    assert started(schedule) == []
    schedule.done(LEFT)
    assert started(schedule) == [LAST]
    assert (schedule.count("done"), schedule.count("running")) == (3, 1)
    schedule.done(LAST)
    assert schedule.missing() == {}


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_a_cell_is_tried_again_as_often_as_asked_and_the_rest_goes_on(retries):
    schedule = Schedule(CELLS, retries)
    schedule.done(FIRST)
    for _ in range(retries):
        schedule.started(LEFT)
        assert schedule.failed(LEFT)
        assert schedule.ready() == LEFT
    schedule.started(LEFT)
    assert not schedule.failed(LEFT)
    assert schedule.attempts(LEFT) == retries + 1
    assert started(schedule) == [RIGHT]
    schedule.done(RIGHT)
    assert schedule.missing() == {LEFT: LEFT, LAST: LEFT}


def test_of_the_hosts_that_a_cell_loses_one_counts_but_not_without_end():
    schedule = Schedule(CELLS, 1)
    assert schedule.failed(FIRST, died=True)
    assert schedule.failed(FIRST, died=True)  # not counted
    assert not schedule.failed(FIRST)
    assert not Schedule(CELLS, 0).failed(FIRST, died=True)
    patient = Schedule(CELLS, 100)
    assert [patient.failed(FIRST, died=True) for _ in range(MOST_DEATHS)] == [True] * (MOST_DEATHS - 1) + [False]
    assert patient.attempts(FIRST) == MOST_DEATHS
