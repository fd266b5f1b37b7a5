"""Random tickets, provenance, and which images are scored on."""

from collections import Counter

import pytest
import torch

from pxframe import steps
from pxframe.job import Job
from pxframe.steps import describe, random_ticket, same_weights
from pxframe.ticket import Ticket
from pxframe.ticket_file import fingerprint
from pxframe_tasks.scoring import drawn


@pytest.fixture
def job(tmp_path):
    return Job(3, "cpu", tmp_path, False, None, {}, None, {}, None, {})


@pytest.mark.parametrize("kept", [0, 1, 37, 119, 120])
def test_a_random_ticket_keeps_exactly_as_many(job, kept):
    flat = torch.arange(120) < kept
    like = Ticket({"a": flat[:100].view(10, 10), "b": flat[100:]})
    made = random_ticket(job, like)
    assert made.kept == kept
    assert {n: m.shape for n, m in made.masks.items()} == {n: m.shape for n, m in like.masks.items()}
    again = random_ticket(job, like)
    assert all(torch.equal(made.masks[n], again.masks[n]) for n in made.masks)


def test_a_ticket_knows_the_weights_it_was_made_from():
    model = torch.nn.Linear(4, 3)
    weights = {"weight": model.weight}
    ticket = Ticket({"weight": torch.ones(3, 4, dtype=torch.bool)}, {"fingerprint": fingerprint(weights)})
    assert same_weights(ticket, model)
    with torch.no_grad():
        model.weight[0, 0] += 1
    assert not same_weights(ticket, model)


def test_a_ticket_with_a_start_of_its_own_is_trained_from_there(job, monkeypatch):
    seen = []
    monkeypatch.setattr(
        steps,
        "_train",
        lambda job, where, task, model, *_: seen.append(model) or {"metric": "m", "value": 0, "seconds": 0},
    )
    job.tasks["t"] = None
    model = torch.nn.Linear(2, 1)
    before = model.weight.detach().clone()
    ticket = Ticket({"weight": torch.tensor([[True, False]])}, start={"weight": torch.full((1, 2), 7.0)})
    steps.transferred(job, "t", "ticket", model, ticket, 2, lambda line: None)
    assert seen[0].weight.tolist() == [[7.0, 0.0]]
    assert torch.equal(model.weight, before)


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
