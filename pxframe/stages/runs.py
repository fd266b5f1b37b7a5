"""The stages of a job that train: pre-train, and transfer a ticket to a task.

Each leaves one file, written whole, that holds what made it (:mod:`pxframe.job.made`). A stage whose file is there, and
was made by the same settings, is not repeated. :mod:`pxframe.stages.tickets` has the stage between them.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pxframe.base import ranks
from pxframe.base.errors import PxframeError
from pxframe.files.writing import set_aside
from pxframe.job.job import Job, Say
from pxframe.job.made import canonical, digest, read_row, read_state, reuse, save_row, save_state
from pxframe.job.outputs import pretrained_file, result_file
from pxframe.plugin.host import host
from pxframe.running.undisturbed import seeded
from pxframe.ticket.file import fingerprint
from pxframe.ticket.ticket import Ticket
from pxframe.training.run import remove_checkpoints, train
from pxframe.training.untrained import zero_shot


def pretrain(job: Job, say: Say) -> nn.Module:
    """Build the backbone to prune, and train it on the ``pretrain`` task where the config has one."""
    with seeded(job.seed, torch.device("cpu")):
        model = job.provider.build(**job.backbone)
    if job.pretrain is None:
        return model
    assert job.config.pretrain is not None
    file, work_dir = pretrained_file(job), job.folder / "pretrain" / "dense"
    recipe = job.recipe(
        "pretrain",
        {"task": job.config.pretrain["type"]},
        task=job.config.pretrain,
        start=fingerprint(model.state_dict()),
    )
    state = job.reuse(file, recipe, read_state, say)
    if state is None:
        trained = copy.deepcopy(model)
        result = run_task(job, "pretrain", job.pretrain, trained, None, work_dir, recipe, say)
        save_state(file, trained.state_dict(), recipe)
        remove_checkpoints(work_dir, keep=job.config.keep_checkpoints)
        say(f"pretrain: {shown(result)} in {result['seconds']:.0f} s")
        state, _ = ranks.by_first(lambda: read_state(file))
    own = model.state_dict()
    # A task with a head of its own has no use for the backbone's classifier, and leaves none.
    model.load_state_dict({**own, **{name: value for name, value in state.items() if name in own}})
    # Use channels_last, as a training run would leave it, so that a resumed run computes bit-identical scores.
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def transfer(job: Job, task: str, variant: str, model: nn.Module, ticket: Ticket, say: Say) -> dict[str, Any]:
    """Train and evaluate one task from the backbone's weights that a ticket keeps; a row of the results.

    Args:
        task: name of the task in the config.
        variant: name of the ticket.
        model: the backbone; a copy of it is trained.
    """
    file = result_file(job, task, variant)
    work_dir = file.parent
    recipe = transfer_recipe(job, task, model, ticket)
    row = job.reuse(file, recipe, read_row, say, belongings=work_dir)
    if row is not None:
        return row
    about = {
        "task": task,
        "variant": variant,
        "method": method_of(job, variant, ticket),
        "seed": job.seed,
        "metric": job.tasks[task].metric,
        "unit": job.tasks[task].unit,
        "higher_is_better": job.tasks[task].higher_is_better,
        "sparsity": ticket.sparsity,
        "prunable_left": ticket.kept,
        "prunable_total": ticket.total,
        "collapsed": ticket.meta.get("collapsed"),
        **({"target": ticket.meta["target"]} if ticket.meta.get("target") else {}),
    }
    if about["collapsed"]:  # its output does not depend on its input: there is nothing to train
        row = {**about, "value": None, "metrics": {}, "seconds": 0.0, "epochs": 0, "diverged": None}
        _begin(job, work_dir, recipe, say)
        save_row(file, row, recipe)
        host().notify("pxframe_task_done", task=task, variant=variant, result=row)
        say(f"{task}, {variant}: collapsed, not trained: {about['collapsed']}")
        return row
    if job.tasks[task].own_classifier:
        about["zero_shot"] = zero_shot(job.setting(), job.tasks[task], model, ticket)
    start = copy.deepcopy(model)
    with seeded(job.seed, torch.device("cpu")):
        slim = job.config.slim
        found = run_task(job, f"{task} {variant}", job.tasks[task], start, ticket, work_dir, recipe, say, slim)
    row = {**found, **about}
    save_row(file, row, recipe)
    remove_checkpoints(work_dir, keep=job.config.keep_checkpoints)
    ill = f"; diverged: the loss was not finite in epoch {row['diverged']}" if row["diverged"] else ""
    say(f"{task}, {variant}: {shown(row)} in {row['seconds']:.0f} s{_untrained(row)}{_slim(row)}{ill}")
    host().notify("pxframe_task_done", task=task, variant=variant, result=row)
    return row


def transfer_recipe(job: Job, task: str, model: nn.Module, ticket: Ticket | None) -> dict[str, Any]:
    """What a row of results depends on; without the ticket where that is not known."""
    config = job.config.tasks[task]
    known = {"ticket": ticket_digest(ticket)} if ticket is not None else {}
    weights = fingerprint(model.state_dict())
    slim = {"slim": True} if job.config.slim else {}  # jobs without it keep the results that they have
    return job.recipe("transfer", {"task": config["type"]}, task=config, weights=weights, **known, **slim)


def ticket_digest(ticket: Ticket) -> str:
    """Digest of what a ticket does to a network: its masks, and the values that training starts from."""
    return fingerprint({**{f"mask of {name}": mask for name, mask in ticket.masks.items()}, **ticket.start})


def finished_rows(
    job: Job, task: str, model: nn.Module, tickets: Mapping[str, Ticket], say: Say
) -> list[dict[str, Any]]:
    """Rows of a task that was not asked for now: those that are there, made by the present settings.

    Args:
        tickets: by name, as they are transferred; those that are not made are left out.
    """
    return ranks.by_first(lambda: _finished_rows(job, task, model, tickets, say))


def _finished_rows(
    job: Job, task: str, model: nn.Module, tickets: Mapping[str, Ticket], say: Say
) -> list[dict[str, Any]]:
    rows = []
    for variant, ticket in tickets.items():
        with suppress(PxframeError):  # a damaged file is dealt with when its task is asked for
            row, found = read_row(result_file(job, task, variant))
            if canonical(found) == canonical(transfer_recipe(job, task, model, ticket)):
                rows.append(row)
    there = len(list((job.folder / task).glob("*/result.json")))
    if there > len(rows):
        say(f"{task}: {there - len(rows)} finished results are left out: they were made with other settings")
    return rows


def run_task(
    job: Job,
    title: str,
    task: Any,
    model: nn.Module,
    ticket: Ticket | None,
    work_dir: Path,
    recipe: dict[str, Any],
    say: Say,
    slim: bool = False,
) -> dict[str, Any]:
    """Train ``model`` in ``work_dir``; an unfinished run there goes on if the same recipe began it."""
    _begin(job, work_dir, recipe, say)
    return train(
        job.setting(), title, task, model, ticket, work_dir, resume=job.resume, made_by=digest(recipe), slim=slim
    )


def _begin(job: Job, work_dir: Path, recipe: Mapping[str, Any], say: Say) -> None:
    """Make ``work_dir`` the folder of a run of this recipe; what another run left there is set aside."""
    begun = work_dir / "recipe.json"
    if ranks.by_first(lambda: work_dir.exists() and any(work_dir.iterdir())):
        mine = reuse(
            begun, recipe, lambda file: (True, read_row(file)[1]), job.root, say, belongings=work_dir, told=job.told
        )
        if mine is None and ranks.by_first(work_dir.exists):
            where = ranks.by_first(lambda: set_aside(work_dir, job.root))
            say(f"{work_dir} holds files that no job of this kind wrote; set aside as {where}")
    if not ranks.by_first(begun.exists):
        save_row(begun, {}, recipe)


def method_of(job: Job, variant: str, ticket: Ticket) -> str:
    """What chose the variant's weights: the line it belongs to in a figure."""
    if variant in job.prunings:
        return job.prunings[variant].method
    return str(ticket.meta.get("scorer", variant))


def _untrained(row: Mapping[str, Any]) -> str:
    """``; untrained 10.03, refitted 47.07``; the empty string for a task with a head of its own."""
    found = row.get("zero_shot", {})
    refitted = f", refitted {found['start']:.2f}" if "start" in found else ""
    return f"; untrained {found['mask']:.2f}{refitted}" if found else ""


def _slim(row: Mapping[str, Any]) -> str:
    """``; slim: 49.9% flops, 30.1% params, 62.0% latency``; the empty string for a network that was not slimmed."""
    found = row.get("slim")
    return f"; slim: {', '.join(f'{share:.1%} {kind}' for kind, share in found.items())}" if found else ""


def shown(row: dict[str, Any]) -> str:
    """``accuracy 93.12``"""
    return f"{row['metric']} {row['value']:.2f}"
