"""Prunes one model with every pruning of a job, and keeps each ticket in a file."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from pxframe.base import ranks
from pxframe.job.job import Job, Say
from pxframe.job.made import NotMade, canonical
from pxframe.job.prunings import Pruning
from pxframe.plugin.task import Task
from pxframe.pruning.loop import prune
from pxframe.pruning.refitting import refit
from pxframe.pruning.rounds import Known
from pxframe.refits.table import build_refit
from pxframe.stages.trainer import Trainer
from pxframe.ticket.file import fingerprint
from pxframe.ticket.layers import describe
from pxframe.ticket.ticket import Ticket


@dataclass(frozen=True)
class Subject:
    """A model to prune: the backbone, or the whole model of a task.

    Attributes:
        model: the model.
        task: the task whose images and loss score the model.
        config: the config of this task, if the job has one.
        folder: folder of the tickets.
        arguments: arguments of :func:`pxframe.prune` that all prunings have, unless they set them themselves.
        backbone: if ``model`` is the whole model of a task, the backbone that it was built from; else None.
    """

    model: nn.Module
    task: Task
    config: Mapping[str, Any] | None
    folder: Path
    arguments: Mapping[str, Any] = field(default_factory=dict)
    backbone: nn.Module | None = None


def prune_subject(job: Job, subject: Subject, prunings: Mapping[str, Pruning], say: Say) -> dict[str, Ticket]:
    """Make the tickets of a model, by name, or read those that an earlier run made with the same settings."""
    model = subject.model
    _set_mode(model, job.scored_on.mode)
    batches = _ScoringBatches(subject.task, job)
    weights = fingerprint(model.state_dict())
    tickets: dict[str, Ticket] = {}
    known: Known = {}
    for name, pruning in prunings.items():
        if job.only is not None and name not in job.only:
            continue
        file, rounds = subject.folder / f"{name}.safetensors", subject.folder / f"{name}.rounds"
        arguments = {**subject.arguments, **pruning.settings}
        recipe = ticket_recipe(job, pruning, subject.config, arguments, weights)
        try:
            ticket = job.reuse(file, recipe, read_ticket, say)
        except NotMade:
            if job.only is not None:  # it was asked for by name
                raise
            continue
        if ticket is None:
            kept = tickets.get(refit_of(prunings, name) or "")
            if kept is not None:
                ticket = refit(model.to(job.device), kept, batches, pruning.settings["refit"], seed=job.seed)
            else:
                ticket = prune(
                    model.to(job.device),
                    batches,
                    pruning.scorer,
                    **arguments,
                    loss=subject.task.loss,
                    train=Trainer(job, subject.task, subject.backbone, folder=rounds, recipe=recipe, say=say),
                    seed=job.seed,
                    allow_collapse=True,
                    known=known,
                    shared=True,
                )
            ticket = Ticket(ticket.masks, {**ticket.meta, "made_by": canonical(recipe)}, ticket.start)
            ranks.by_first(functools.partial(_save, ticket, file, rounds))
            say(f"prune: {describe(ticket)} -> {file}")
        tickets[name] = ticket
    return tickets


def _save(ticket: Ticket, file: Path, rounds: Path) -> None:
    """Write a ticket, and remove what its scorer kept between rounds."""
    ticket.save(file)
    shutil.rmtree(rounds, ignore_errors=True)


def refit_of(prunings: Mapping[str, Pruning], name: str) -> str | None:
    """The ticket before ``name`` that differs from it in the refit alone, so that it need not be scored again."""
    for earlier, pruning in prunings.items():
        if earlier == name:
            break
        if _is_kept(pruning, prunings[name]):
            return earlier
    return None


def _is_kept(one: Pruning, other: Pruning) -> bool:
    """Whether ``other`` is the same as ``one``, and then a refit."""
    refitted = build_refit(other.settings.get("refit", "keep"))
    if refitted.name == "keep" or refitted.when != "last" or one.settings.get("refit", "keep") != "keep":
        return False
    plain = [{k: v for k, v in p.settings.items() if k != "refit"} for p in (one, other)]
    return one.scorer == other.scorer and plain[0] == plain[1]


def ticket_recipe(
    job: Job, pruning: Pruning, config: Mapping[str, Any] | None, arguments: Mapping[str, Any], weights: str
) -> dict[str, Any]:
    """What a ticket depends on.

    Args:
        config: the config of the task whose images are scored.
        arguments: of :func:`pxframe.prune`, as far as they can be written as JSON.
        weights: fingerprint of the model's weights.
    """
    depends: dict[str, Any] = {
        "scorer": pruning.scorer,
        "settings": arguments,
        "weights": weights,
        "whole": job.whole,
    }
    uses = {"scorer": pruning.scorer["type"]}
    # Tickets of single weights do not depend on images that no score reads; the costs of channels depend on their size.
    refitted = pruning.settings.get("refit", "keep") != "keep"
    if pruning.needs != "nothing" or pruning.settings["granularity"] != "weight" or refitted:
        assert config is not None
        uses["task"] = config["type"]
        on = job.scored_on
        depends |= {"task": config, "samples": on.samples, "batch_size": on.batch_size, "mode": on.mode}
    if pruning.needs == "training" and ranks.size() > 1:
        depends["processes"] = ranks.size()  # random draws of training differ with their number
    return job.recipe("prune", uses, **depends)


def read_ticket(file: Path) -> tuple[Ticket, Any]:
    """The ticket in a file, and the recipe that made it."""
    ticket = Ticket.load(file)
    return ticket, ticket.meta.get("made_by")


def _set_mode(model: nn.Module, mode: str) -> None:
    """Set batch norms to ``mode``, and everything else (dropout, stochastic depth) to evaluation mode."""
    for module in model.modules():
        module.training = mode == "train" and isinstance(module, nn.modules.batchnorm._BatchNorm)


class _ScoringBatches:
    """The scoring images of a repetition. They are read when they are first needed, and kept for all prunings."""

    def __init__(self, task: Task, job: Job) -> None:
        self._task, self._job = task, job
        self._batches: list[Any] | None = None

    def __iter__(self) -> Iterator[Any]:
        if self._batches is None:
            on = self._job.scored_on
            self._batches = list(self._task.batches(on.samples, on.batch_size, seed=self._job.seed))
        return iter(self._batches)
