"""Variants of a job, provenance, and which images are scored on."""

from collections import Counter
from types import SimpleNamespace

import pytest
import torch

from pxframe.base.errors import PxframeError
from pxframe.job import tickets as ticketing
from pxframe.job.cells import method_of, random_ticket, variants
from pxframe.job.job import Job, Scoring
from pxframe.job.tickets import describe, same_weights, with_weights
from pxframe.ticket.file import fingerprint
from pxframe.ticket.ticket import Ticket
from pxframe.training.drawing import drawn
from pxframe.training.hooks import TicketHook


@pytest.fixture
def job(tmp_path):
    return Job((3,), "cpu", tmp_path, False, None, {}, None, {}, None, {})


@pytest.mark.parametrize("kept", [0, 1, 37, 119, 120])
def test_a_random_ticket_keeps_exactly_as_many(kept):
    flat = torch.arange(120) < kept
    like = Ticket({"a": flat[:100].view(10, 10), "b": flat[100:]})
    made = random_ticket(like, 3)
    assert made.kept == kept
    assert {n: m.shape for n, m in made.masks.items()} == {n: m.shape for n, m in like.masks.items()}
    again = random_ticket(like, 3)
    assert all(torch.equal(made.masks[n], again.masks[n]) for n in made.masks)


def test_a_ticket_knows_the_weights_it_was_made_from():
    model = torch.nn.Linear(4, 3)
    weights = {"weight": model.weight}
    ticket = Ticket({"weight": torch.ones(3, 4, dtype=torch.bool)}, {"fingerprint": fingerprint(weights)})
    assert same_weights(ticket, model)
    with torch.no_grad():
        model.weight[0, 0] += 1
    assert not same_weights(ticket, model)


def ticket(kept, total=100, scorer="px", **options):
    return Ticket({"weight": torch.arange(total) < kept}, {"scorer": scorer}, **options)


def test_one_random_ticket_for_each_size_and_sparser_ones_later():
    made = {"px-98.00": ticket(2), "px-90.00": ticket(10), "snip-98.00": ticket(2), "snip-90.00": ticket(10)}
    found = variants(made, seed=0)
    assert list(found) == [
        *("dense", "px-90.00", "snip-90.00", "random-90.00"),
        *("px-98.00", "snip-98.00", "random-98.00"),
    ]
    assert found["dense"] is None
    assert all(t is found[name] for name, t in made.items())
    assert [found[f"random-{level}.00"].kept for level in (90, 98)] == [10, 2]


def test_a_random_ticket_of_the_users_own_needs_no_other():
    assert list(variants({"px-90.00": ticket(10), "random-90.00": ticket(10)}, 0)) == [
        *("dense", "px-90.00", "random-90.00")
    ]


def test_random_tickets_have_the_same_names_for_every_seed_though_sizes_differ():
    for sizes in ((40, 50), (41, 52)):
        found = variants({f"{m}-50.00": ticket(n) for m, n in zip(("px", "snip"), sizes, strict=True)}, 0)
        assert set(found) == {"dense", "px-50.00", "snip-50.00", "random-50.00", "random-like-snip-50.00"}
        assert (found["random-50.00"].kept, found["random-like-snip-50.00"].kept) == sizes
        assert method_of("random-like-snip-50.00", found["random-like-snip-50.00"]) == "random-like-snip"
    assert method_of("px-rounds=1-50.00", found["px-50.00"]) == "px-rounds=1"
    assert method_of("ticket", found["px-50.00"]) == "px"


def test_one_ticket_goes_by_that_name():
    assert list(variants({"px-90.00": ticket(10)}, 0)) == ["dense", "ticket", "random"]


@pytest.mark.parametrize(
    ("transfer", "start", "trained_from"),
    [
        (None, {}, 1.0),
        (None, {"weight": 7.0}, 7.0),
        ("mask", {"weight": 7.0}, 1.0),
        ("mask+weights", {"weight": 7.0}, 7.0),
    ],
)
def test_which_weights_a_ticket_is_transferred_with(job, transfer, start, trained_from):
    job.transfer = transfer
    model = torch.nn.Linear(2, 1)
    torch.nn.init.ones_(model.weight)
    mask = {"weight": torch.tensor([[True, False]])}
    made = Ticket(mask, start={n: torch.full((1, 2), value) for n, value in start.items()})
    hook = TicketHook(with_weights(job, "ticket", made, model, print))
    training = SimpleNamespace(
        model=model, iter=0, optim_wrapper=SimpleNamespace(optimizer=torch.optim.SGD(model.parameters(), 1.0))
    )
    hook.before_train(training)
    assert model.weight.tolist() == [[trained_from, 0.0]]
    with torch.no_grad():
        model.weight.fill_(3.0)
    training.iter = 5  # resumed: training has been there already
    hook.before_train(training)
    assert model.weight.tolist() == [[3.0, 0.0]]


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_scorers_see_the_mode_that_is_asked_for_and_no_dropout(job, monkeypatch, mode):
    class Task:
        def batches(self, samples, batch_size, *, seed):
            return [(samples, batch_size, seed)]

    def prune(model, batches, **_):
        assert batches == [(5, 2, 3)]
        assert [m.training for m in model] == [mode == "train", False]
        return ticket(1)

    monkeypatch.setattr(ticketing, "prune", prune)
    job.scoring = Scoring(Task(), 5, 2, mode)
    job.provider = SimpleNamespace(classifier=lambda model: "")
    job.plans["mine-50.00"] = {}
    model = torch.nn.Sequential(torch.nn.BatchNorm1d(2), torch.nn.Dropout())
    assert ticketing.tickets(job, model, print)["mine-50.00"].kept == 1


def test_weights_of_a_ticket_s_own_need_a_task_to_train_on(job):
    job.transfer = "mask+weights"
    with pytest.raises(PxframeError, match="carries no weights, and there is no 'pretrain'"):
        with_weights(job, "px", ticket(1), torch.nn.Linear(2, 1), print)


def test_describe_names_emptied_layers():
    ticket = Ticket({"a": torch.tensor([True, False]), "b": torch.tensor([False])}, {"scorer": "px"})
    assert describe(ticket) == "px kept 1 of 3 weights (66.67% sparse); nothing left of b"


def test_images_are_drawn_evenly_over_classes_by_seed():
    labels = [0] * 500 + [1] * 30 + [2] * 5
    chosen = drawn(len(labels), 21, labels, seed=0)
    assert len(set(chosen)) == 21
    assert Counter(labels[i] for i in chosen) == {0: 8, 1: 8, 2: 5}
    assert drawn(len(labels), 21, labels, seed=0) == chosen != drawn(len(labels), 21, labels, seed=1)
    assert len(drawn(5, 21, None, seed=0)) == 5
