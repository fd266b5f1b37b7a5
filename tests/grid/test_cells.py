"""The cells of a job come from its config alone: nothing is built, and no data is read."""

import pytest
import torch

from pxframe.base.errors import PxframeError
from pxframe.grid.cells import Cell, cells, made_by
from pxframe.job.config import JobConfig, Prune
from pxframe.job.job import Job
from pxframe.job.prunings import prunings
from pxframe.ticket.ticket import Ticket


@pytest.fixture
def job(tmp_path):
    """``job(seeds=..., tasks=..., **settings)``: a job with no network, no data and no images at all."""

    def make(seeds=(0,), tasks=("a", "b"), pretrain=True, given=None, transfer=None, **prune):
        settings = Prune(**{"scorer": "magnitude", "sparsity": 0.8, "controls": ["dense"], **prune})
        config = JobConfig(file="m.py", backbone={}, tasks=dict.fromkeys("ab"), prune=settings, transfer=transfer)
        made = {} if given else prunings(settings)
        built = dict.fromkeys(tasks)
        return Job(
            config, seeds, "cpu", tmp_path, False, None, object() if pretrain else None, made, None, built, given
        )

    return make


def names(found):
    return {str(cell): {str(need) for need in needs} for cell, needs in found.items()}


def test_a_ticket_is_made_once_and_transferred_to_every_task(job):
    assert names(cells(job())) == {
        "seed-0/pretrain": set(),
        "seed-0/tickets/dense": {"seed-0/pretrain"},
        "seed-0/tickets/magnitude-80.00": {"seed-0/pretrain"},
        **{
            f"seed-0/{task}/{variant}": {f"seed-0/tickets/{variant}"}
            for task in "ab"
            for variant in ("dense", "magnitude-80.00")
        },
    }


def test_every_seed_stands_alone(job):
    found = names(cells(job(seeds=(3, 5))))
    assert len(found) == 2 * 7
    assert all(need.split("/")[0] == cell.split("/")[0] for cell, needs in found.items() for need in needs)


def test_without_pretraining_a_ticket_needs_nothing_and_only_the_chosen_tasks_are_run(job):
    found = names(cells(job(pretrain=False, tasks=["b"])))
    assert found["seed-0/tickets/dense"] == set()
    assert {cell for cell in found if "tickets" not in cell} == {"seed-0/b/dense", "seed-0/b/magnitude-80.00"}


def test_whole_models_have_tickets_of_each_task(job):
    found = names(cells(job(whole=True)))
    assert found["seed-0/tickets/a/dense"] == {"seed-0/pretrain"}
    assert found["seed-0/b/dense"] == {"seed-0/tickets/b/dense"}
    assert len(found) == 1 + 4 + 4


def test_masks_with_weights_are_trained_once_for_all_tasks(job):
    found = names(cells(job(transfer="mask+weights")))
    assert found["seed-0/pretrain/dense"] == {"seed-0/tickets/dense"}
    assert found["seed-0/a/dense"] == found["seed-0/b/dense"] == {"seed-0/pretrain/dense"}
    assert "seed-0/pretrain/dense" not in names(cells(job(transfer="mask+weights", tasks=[])))


def test_a_given_ticket_is_not_made_but_its_controls_are(job):
    ticket = Ticket({"weight": torch.eye(4).bool()})
    found = names(cells(job(given=("mine", ticket), controls=["random", "dense"])))
    assert found["seed-0/a/mine"] == {"seed-0/pretrain"}
    assert {cell for cell in found if "tickets" in cell} == {"seed-0/tickets/dense", "seed-0/tickets/random-75.00"}
    with pytest.raises(PxframeError, match="has the name of a control"):
        cells(job(given=("dense", ticket)))


def test_a_refit_needs_the_ticket_that_it_refits(job):
    scorers = [{"type": "snip"}, {"type": "snip", "refit": "obs"}, {"type": "snip", "refit": "obs", "rounds": 3}]
    found = names(cells(job(scorer=scorers, controls=[])))
    assert found["seed-0/tickets/snip-refit=obs-80.00"] == {"seed-0/pretrain", "seed-0/tickets/snip-80.00"}
    assert found["seed-0/tickets/snip-80.00"] == {"seed-0/pretrain"}
    (other,) = (name for name in found if name.startswith("seed-0/tickets/snip-") and "rounds" in name)
    assert found[other] == {"seed-0/pretrain"}


@pytest.mark.parametrize("settings", [{}, {"whole": True}, {"transfer": "mask+weights"}, {"scorer": ["px", "snip"]}])
def test_what_a_cell_needs_comes_before_it_and_no_two_share_a_name_or_a_file(job, settings):
    one = job(seeds=(0, 1), **settings)
    found = cells(one)
    before = set()
    for cell, needs in found.items():
        assert before.issuperset(needs)
        before.add(cell)
    for key in (str, lambda c: made_by(c, one), lambda c: c.log(one.root), lambda c: c.lock(one.root)):
        assert len({key(cell) for cell in found}) == len(found)


def test_where_a_cell_prints_and_what_it_holds(tmp_path):
    cell = Cell("train", 7, "a", "px-90.00")
    assert cell.log(tmp_path) == tmp_path / "logs" / "seed-7" / "a" / "px-90.00.log"
    assert cell.lock(tmp_path) == tmp_path / "logs" / "seed-7" / "a" / "px-90.00.lock"
