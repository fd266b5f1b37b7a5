"""The number of threads follows the load of the machine, unless the user has set one."""

import os

import pytest
import torch

from pxframe_tools.common import choose_threads


@pytest.fixture
def machine(monkeypatch):
    """Fake a machine: ``machine(cores, load)``, on which torch would use a thread for each core."""
    threads = torch.get_num_threads()
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)

    def fake(cores, load):
        torch.set_num_threads(cores)
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)), raising=False)
        monkeypatch.setattr(os, "getloadavg", lambda: (load, load, load), raising=False)

    yield fake
    torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("cores", "load", "threads"),
    [(2, 0.0, 2), (2, 1.3, 2), (2, 2.0, 1), (2, 7.0, 1), (8, 5.0, 4), (8, 0.2, 8), (1, 3.0, 1)],
)
def test_threads_take_the_free_cores(machine, cores, load, threads):
    machine(cores, load)
    assert choose_threads() == threads == torch.get_num_threads()


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "MKL_NUM_THREADS"])
def test_the_user_s_number_stays(machine, monkeypatch, name):
    machine(4, 9.0)
    monkeypatch.setenv(name, "4")
    assert choose_threads() == 4 == torch.get_num_threads()


def test_a_number_below_the_free_cores_stays(machine):
    machine(4, 0.0)
    torch.set_num_threads(2)
    assert choose_threads() == 2 == torch.get_num_threads()
