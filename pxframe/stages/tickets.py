"""The tickets of a job, and the weights that they are transferred with.

Tickets are made of the backbone, once, or of the whole model of each task.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import nn

from pxframe.base import ranks
from pxframe.base.errors import PxframeError
from pxframe.job.exclusions import default_exclude
from pxframe.job.job import Job, Say
from pxframe.job.made import canonical
from pxframe.job.outputs import tickets_folder, weights_file
from pxframe.job.prunings import Pruning, controls_of
from pxframe.stages.runs import run_task, shown, ticket_digest
from pxframe.stages.subject import Subject, prune_subject, read_ticket, ticket_recipe
from pxframe.ticket.file import fingerprint
from pxframe.ticket.layers import describe
from pxframe.ticket.ticket import Ticket, holds_network
from pxframe.training.run import close, remove_checkpoints
from pxframe.training.window import initialised


def make_tickets(job: Job, model: nn.Module, say: Say) -> dict[str, Ticket]:
    """Prune the backbone once for every pruning of the job. A ticket that was given comes with its controls.

    Returns:
        tickets by name, the densest first.
    """
    task = job.scored_on.task
    assert task is not None  # it is None only if whole models are pruned
    prunings = job.prunings
    if job.given is not None:
        prunings = given_controls(job, (name for name, _ in model.named_parameters()))
    exclude = default_exclude(job.provider, model) if job.given is None else ()
    backbone = Subject(model, task, job.scored_on.config, tickets_folder(job), arguments={"exclude": exclude})
    tickets = prune_subject(job, backbone, prunings, say)
    if job.given is None or (job.only is not None and job.given[0] not in job.only):
        return tickets
    name, given = job.given
    say(f"ticket {name}: {describe(given)}{'' if same_weights(given, model) else '; made from other weights'}")
    return dict(sorted({name: given, **tickets}.items(), key=lambda item: round(item[1].sparsity, 3)))


def given_controls(job: Job, names: Iterable[str] = ()) -> dict[str, Pruning]:
    """The controls beside the ticket that was given.

    Args:
        names: of all parameters of the network. What the controls are called does not depend on them.

    Raises:
        PxframeError: one of them has the ticket's name.
    """
    assert job.given is not None
    name, given = job.given
    found = controls_of(given, job.config.prune, names)
    if name in found:
        raise PxframeError(f"the ticket's file has the name of a control, {name!r}; rename the file")
    return found


def finished_tickets(job: Job, tickets: Mapping[str, Ticket], task: str) -> dict[str, Ticket]:
    """The tickets that ``task`` was trained with in an earlier run, as far as they are known without new work.

    Args:
        tickets: the tickets of the backbone, by name. There are none if each task's whole model is pruned.
    """
    return ranks.by_first(lambda: _finished_tickets(job, tickets, task))


def _finished_tickets(job: Job, tickets: Mapping[str, Ticket], task: str) -> dict[str, Ticket]:
    transfer = job.config.transfer
    if not job.whole and transfer != "mask+weights":
        return {name: _with_start(ticket, transfer) for name, ticket in tickets.items()}
    found = {}
    for name in job.prunings if job.whole else tickets:
        file = tickets_folder(job, task) / f"{name}.safetensors" if job.whole else weights_file(job, name)
        own = tickets.get(name)
        if own is not None and (own.start or own.kept == own.total):
            found[name] = own
        if file.exists():  # of a ticket that has starting values, too: those of a refit, which was then trained
            with suppress(PxframeError):
                made, recipe = read_ticket(file)
                if _present(job, name, task, recipe, own):
                    found[name] = made
    return found


def _present(job: Job, name: str, task: str, recipe: Any, own: Ticket | None) -> bool:
    """Whether the present settings would make the same ticket, as far as this is known without its model."""
    if not isinstance(recipe, dict):
        return False
    if own is not None:
        return recipe.get("ticket") == ticket_digest(own) and recipe.get("task") == canonical(job.config.pretrain)
    wanted = ticket_recipe(job, job.prunings[name], job.config.tasks[task], job.prunings[name].settings, "")
    return {**recipe, "weights": ""} == canonical(wanted)


def _with_start(ticket: Ticket, transfer: str | None) -> Ticket:
    """The ticket; with ``transfer="mask"``, without its starting values."""
    return Ticket(ticket.masks, ticket.meta) if transfer == "mask" and ticket.start else ticket


def make_whole_tickets(job: Job, name: str, model: nn.Module, say: Say) -> dict[str, Ticket]:
    """Prune the whole model of task ``name``, head included, once for every pruning of the job.

    Returns:
        tickets by name, the densest first.
    """
    return prune_subject(job, whole_subject(job, name, model), job.prunings, say)


def whole_subject(job: Job, name: str, model: nn.Module) -> Subject:
    """The whole model of task ``name`` as training begins with it, built from the backbone ``model``."""
    task = job.tasks[name]
    with tempfile.TemporaryDirectory() as scratch:
        runner = job.setting().runner(task, copy.deepcopy(model), Path(scratch))
        start = initialised(runner)
        close(runner)
    return Subject(start, task, job.config.tasks[name], tickets_folder(job, name), backbone=model)


def with_weights(job: Job, name: str, ticket: Ticket, model: nn.Module, say: Say) -> Ticket:
    """The ticket with the weights that it is transferred with in its ``start``, as the job's ``transfer`` says.

    With ``transfer="mask+weights"`` the sparse network is trained on the ``pretrain`` task, unless an earlier run did.
    """
    transfer = job.config.transfer
    if transfer != "mask+weights":
        return _with_start(ticket, transfer)
    # A ticket that keeps all weights needs no training: pre-training gave the weights of the dense backbone already. A
    # collapsed network is not trained.
    trained = holds_network(ticket.start, ticket.masks, (name for name, _ in model.named_parameters()))
    if trained or ticket.kept == ticket.total or ticket.meta.get("collapsed"):
        return ticket
    if job.pretrain is None or job.config.pretrain is None:
        raise PxframeError(
            "transfer='mask+weights': the ticket carries no trained weights, and there is no 'pretrain' task"
        )
    file, work_dir = weights_file(job, name), job.folder / "pretrain" / name
    config = job.config.pretrain
    recipe = job.recipe(
        "pretrain with a ticket",
        {"task": config["type"]},
        task=config,
        weights=fingerprint(model.state_dict()),
        ticket=ticket_digest(ticket),
    )
    found = job.reuse(file, recipe, read_ticket, say)
    if found is not None:
        return found
    sparse = copy.deepcopy(model)
    result = run_task(job, f"{name} on pretrain", job.pretrain, sparse, ticket, work_dir, recipe, say)
    made = Ticket(ticket.masks, {**ticket.meta, "made_by": canonical(recipe)}, sparse.state_dict())
    ranks.by_first(lambda: made.save(file))
    remove_checkpoints(work_dir, keep=job.config.keep_checkpoints)
    say(f"pretrain, {name}: {shown(result)} in {result['seconds']:.0f} s -> {file}")
    return made


def same_weights(ticket: Ticket, model: nn.Module) -> bool:
    """Whether the ticket was made from the weights that ``model`` has now."""
    parameters = dict(model.named_parameters())
    return ticket.meta.get("fingerprint") == fingerprint({n: parameters[n] for n in ticket.masks if n in parameters})
