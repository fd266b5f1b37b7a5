"""Making tickets: of the backbone, once, or of each task's whole model; and the weights they are transferred with."""

from __future__ import annotations

import copy
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import nn

from pxframe.base.errors import PxframeError, printable
from pxframe.job.job import Job
from pxframe.job.made import canonical, read_state, reuse, save_state
from pxframe.job.prunings import Pruning, controls_of
from pxframe.job.stages import Say, run_task, shown
from pxframe.plugin.task import Task
from pxframe.pruning.loop import prune
from pxframe.ticket.file import fingerprint
from pxframe.ticket.ticket import Ticket
from pxframe.training.hooks import initialised
from pxframe.training.run import close, remove_checkpoints, train_between


def make_tickets(job: Job, model: nn.Module, say: Say) -> dict[str, Ticket]:
    """Prune the backbone once for every pruning of the job; tickets by name, the densest first.

    A ticket that was given comes with its controls.
    """
    task = job.scored_on.task
    assert task is not None  # else whole models are pruned
    made = job.prunings
    if job.given is not None:
        made = controls_of(job.given[1], job.config.prune, (name for name, _ in model.named_parameters()))
    classifier = job.provider.classifier(model)
    # The classifier belongs to the source task: every new task puts its own head there, so it is left alone.
    exclude = (f"{classifier}.*",) if classifier and job.given is None else ()
    options = {"exclude": exclude, "loss": task.loss}
    tickets = _make(job, made, job.scored_on.config, task, model, options, job.folder / "tickets", None, say)
    if job.given is None:
        return tickets
    name, given = job.given
    if name in tickets:
        raise PxframeError(f"the ticket's file is called like a control, {name!r}; rename the file")
    say(f"ticket {name}: {describe(given)}{'' if same_weights(given, model) else '; made from other weights'}")
    return dict(sorted({name: given, **tickets}.items(), key=lambda item: round(item[1].sparsity, 3)))


def finished_tickets(job: Job, tickets: Mapping[str, Ticket], task: str) -> dict[str, Ticket]:
    """The tickets that ``task`` was transferred with, of those that need not be made for it.

    Args:
        tickets: of the backbone, by name; empty where each task's whole model is pruned.
    """
    transfer, folder = job.config.transfer, job.folder / "tickets"
    if not job.whole and transfer != "mask+weights":
        return {name: _with_start(ticket, transfer) for name, ticket in tickets.items()}
    found = {}
    for name in job.prunings if job.whole else tickets:
        file = folder / task / f"{name}.safetensors" if job.whole else folder / f"{name}+weights.safetensors"
        own = tickets.get(name)
        if own is not None and (own.start or own.kept == own.total):
            found[name] = own
        elif file.exists():
            with suppress(PxframeError):
                made, recipe = _read(file)
                if _present(job, name, task, recipe, own):
                    found[name] = made
    return found


def _present(job: Job, name: str, task: str, recipe: Any, own: Ticket | None) -> bool:
    """Whether a ticket's recipe is of the present settings, as far as they are known without its model."""
    if not isinstance(recipe, dict):
        return False
    if own is not None:
        return recipe.get("ticket") == fingerprint(own.masks) and recipe.get("task") == canonical(job.config.pretrain)
    wanted = _recipe(job, job.prunings[name], job.config.tasks[task], job.prunings[name].settings, "")
    return {**recipe, "weights": ""} == canonical(wanted)


def _with_start(ticket: Ticket, transfer: str | None) -> Ticket:
    """With ``transfer="mask"``, the ticket without values of its own."""
    return Ticket(ticket.masks, ticket.meta) if transfer == "mask" and ticket.start else ticket


def make_whole_tickets(job: Job, name: str, model: nn.Module, say: Say) -> dict[str, Ticket]:
    """Prune the whole model of task ``name``, head included, once for every pruning of the job; tickets by name."""
    task = job.tasks[name]
    with tempfile.TemporaryDirectory() as scratch:
        runner = job.setting().runner(task, copy.deepcopy(model), Path(scratch))
        start = initialised(runner)
        close(runner)
    options = {"loss": task.loss}
    return _make(
        job, job.prunings, job.config.tasks[name], task, start, options, job.folder / "tickets" / name, model, say
    )


def with_weights(job: Job, name: str, ticket: Ticket, model: nn.Module, say: Say) -> Ticket:
    """The ticket with the weights to transfer it with in its ``start``, as the job's ``transfer`` asks for."""
    transfer = job.config.transfer
    if transfer != "mask+weights":
        return _with_start(ticket, transfer)
    # Of all weights, pre-training gave just those of the backbone; a collapsed network is not trained.
    if ticket.start or ticket.kept == ticket.total or ticket.meta.get("collapsed"):
        return ticket
    if job.pretrain is None or job.config.pretrain is None:
        raise PxframeError("transfer='mask+weights': the ticket carries no weights, and there is no 'pretrain' task")
    file, work_dir = job.folder / "tickets" / f"{name}+weights.safetensors", job.folder / "pretrain" / name
    config = job.config.pretrain
    recipe = job.recipe(
        "pretrain with a ticket",
        {"task": config["type"]},
        task=config,
        weights=fingerprint(model.state_dict()),
        ticket=fingerprint(ticket.masks),
    )
    found = reuse(file, recipe, _read, job.root, say, told=job.told)
    if found is not None:
        return found
    sparse = copy.deepcopy(model)
    result = run_task(job, f"{name} on pretrain", job.pretrain, sparse, ticket, work_dir, recipe, say)
    trained = Ticket(ticket.masks, {**ticket.meta, "made_by": canonical(recipe)}, sparse.state_dict())
    trained.save(file)
    remove_checkpoints(work_dir, keep=job.config.keep_checkpoints)
    say(f"pretrain, {name}: {shown(result)} in {result['seconds']:.0f} s -> {file}")
    return trained


def same_weights(ticket: Ticket, model: nn.Module) -> bool:
    """Whether the ticket was made from the weights that ``model`` has now."""
    parameters = dict(model.named_parameters())
    return ticket.meta.get("fingerprint") == fingerprint({n: parameters[n] for n in ticket.masks if n in parameters})


def describe(ticket: Ticket) -> str:
    """One line: scorer, sparsity, weights left, emptied layers, and weights that no method could prune."""
    scorer = ticket.meta.get("scorer", "a ticket")
    rest = f"; nothing left of {', '.join(ticket.emptied)}" if ticket.emptied else ""
    dense = ticket.meta.get("left_dense") or []
    rest += f"; not prunable, left dense: {', '.join(dense)}" if dense else ""
    rest += f"; collapsed: {ticket.meta['collapsed']}" if ticket.meta.get("collapsed") else ""
    return printable(f"{scorer} kept {ticket.kept:,} of {ticket.total:,} weights ({ticket.sparsity:.2%} sparse){rest}")


def _make(
    job: Job,
    made: Mapping[str, Pruning],
    config: Mapping[str, Any] | None,
    task: Task,
    model: nn.Module,
    options: Mapping[str, Any],
    folder: Path,
    backbone: nn.Module | None,
    say: Say,
) -> dict[str, Ticket]:
    """Tickets of ``model``, scored on the images of ``task``; ``backbone``: what a whole model was made of."""
    _set_mode(model, job.scored_on.mode)
    data = _Once(task, job)
    weights = fingerprint(model.state_dict())
    tickets = {}
    for name, pruning in made.items():
        file = folder / f"{name}.safetensors"
        arguments = {**options, **pruning.settings}
        recipe = _recipe(job, pruning, config, arguments, weights)
        ticket = reuse(file, recipe, _read, job.root, say, told=job.told)
        if ticket is None:
            rounds = folder / f"{name}.rounds"
            train = _Trainer(job, task, backbone, rounds, recipe, say)
            ticket = prune(
                model.to(job.device),
                data,
                pruning.scorer,
                **arguments,
                train=train,
                seed=job.seed,
                allow_collapse=True,
            )
            ticket = Ticket(ticket.masks, {**ticket.meta, "made_by": canonical(recipe)}, ticket.start)
            ticket.save(file)
            shutil.rmtree(rounds, ignore_errors=True)
            say(f"prune: {describe(ticket)} -> {file}")
        tickets[name] = ticket
    return tickets


def _recipe(
    job: Job, pruning: Pruning, config: Mapping[str, Any] | None, arguments: Mapping[str, Any], weights: str
) -> dict[str, Any]:
    depends: dict[str, Any] = {
        "scorer": pruning.scorer,
        "settings": {key: value for key, value in arguments.items() if key != "loss"},
        "weights": weights,
        "whole": job.whole,
    }
    uses = {"scorer": pruning.scorer["type"]}
    # Tickets of single weights do not depend on images that no score reads; the costs of channels depend on their size.
    if pruning.needs != "nothing" or pruning.settings["granularity"] != "weight":
        assert config is not None
        uses["task"] = config["type"]
        on = job.scored_on
        depends |= {"task": config, "samples": on.samples, "batch_size": on.batch_size, "mode": on.mode}
    return job.recipe("prune", uses, **depends)


def _read(file: Path) -> tuple[Ticket, Any]:
    ticket = Ticket.load(file)
    return ticket, ticket.meta.get("made_by")


def _set_mode(model: nn.Module, mode: str) -> None:
    """Batch norms in ``mode``, everything else (dropout, stochastic depth) in evaluation mode."""
    for module in model.modules():
        module.training = mode == "train" and isinstance(module, nn.modules.batchnorm._BatchNorm)


class _Once:
    """The scoring images of a repetition, read from the files when first asked for and kept for every pruning."""

    def __init__(self, task: Task, job: Job) -> None:
        self._task, self._job = task, job
        self._batches: list[Any] | None = None

    def __iter__(self) -> Iterator[Any]:
        if self._batches is None:
            on = self._job.scored_on
            self._batches = list(self._task.batches(on.samples, on.batch_size, seed=self._job.seed))
        return iter(self._batches)


class _Trainer:
    """What scorers that need training train with (:data:`pxframe.scoring.net.Train`): the task's own runner.

    Each training leaves its outcome in ``folder``, so that a job that was stopped repeats none of them.
    """

    def __init__(
        self, job: Job, task: Task, backbone: nn.Module | None, folder: Path, recipe: dict[str, Any], say: Say
    ) -> None:
        self._job, self._task, self._backbone = job, task, backbone
        self._folder, self._recipe, self._say = folder, recipe, say

    def __call__(self, model: nn.Module, ticket: Ticket, start: int = 0, stop: int | None = None) -> None:
        begin = fingerprint({**model.state_dict(), **{f"mask of {n}": m for n, m in ticket.masks.items()}})
        recipe = {**self._recipe, "start": start, "stop": stop, "from": begin}
        file = self._folder / f"{begin[:16]}-{start}-{stop}.safetensors"
        state = reuse(file, recipe, read_state, self._job.root, self._say, told=self._job.told)
        if state is not None:
            model.load_state_dict(state)
            return
        with tempfile.TemporaryDirectory() as scratch:
            train_between(self._job.setting(), self._task, model, ticket, Path(scratch), start, stop, self._backbone)
        save_state(file, model.state_dict(), recipe)
