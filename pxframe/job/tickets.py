"""Making tickets: of the backbone, once, or of each task's whole model; and the weights they are transferred with."""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path
from typing import Any

from torch import nn

from pxframe.base.errors import PxframeError
from pxframe.job.job import Job
from pxframe.plugin.task import Task
from pxframe.pruning.loop import prune
from pxframe.scoring.net import Train
from pxframe.ticket.file import fingerprint
from pxframe.ticket.ticket import Ticket
from pxframe.training.run import close, train, train_between

Say = Any


def tickets(job: Job, model: nn.Module, say: Say) -> dict[str, Ticket]:
    """Prune the backbone once for every plan; tickets by name."""
    assert job.scoring is not None  # else the job would not have been built
    assert job.scoring.task is not None
    exclude = _classifier_pattern(job, model)
    options = {"exclude": exclude, "loss": job.scoring.task.loss, "train": _trainer(job, job.scoring.task)}
    return _tickets(job, job.scoring.task, model, options, job.work_dir / "tickets", say)


def whole_tickets(job: Job, name: str, model: nn.Module, say: Say) -> dict[str, Ticket]:
    """Prune the whole model of task ``name``, head included, once for every plan; tickets by name."""
    from pxframe.training.hooks import initialised

    task = job.tasks[name]
    with tempfile.TemporaryDirectory() as scratch:
        runner = job.setting().runner(task, copy.deepcopy(model), Path(scratch))
        start = initialised(runner)
        close(runner)
    options = {"loss": task.loss, "train": _trainer(job, task, model)}
    return _tickets(job, task, start, options, job.work_dir / "tickets" / name, say)


def with_weights(job: Job, name: str, ticket: Ticket | None, model: nn.Module, say: Say) -> Ticket | None:
    """The ticket with the weights to transfer it with in its ``start``, as the job's ``transfer`` asks for."""
    if ticket is None or job.transfer is None or (job.transfer == "mask" and not ticket.start):
        return ticket
    if job.transfer == "mask":
        return Ticket(ticket.masks, ticket.meta)
    if ticket.start:
        return ticket
    if job.pretrain is None:
        raise PxframeError("transfer='mask+weights': the ticket carries no weights, and there is no 'pretrain' task")
    file = job.work_dir / "tickets" / f"{name}+weights.safetensors"
    if not file.exists():
        sparse = copy.deepcopy(model)
        result = train(
            job.setting(job.resume),
            f"{name} on pretrain",
            job.pretrain,
            sparse,
            ticket,
            job.work_dir / "pretrain" / name,
        )
        start = {n: t.cpu().contiguous() for n, t in sparse.state_dict().items()}
        Ticket(ticket.masks, ticket.meta, start).save(file)
        say(f"pretrain, {name}: {result['metric']} {result['value']:.1f} in {result['seconds']:.0f} s -> {file}")
    return Ticket.load(file)


def same_weights(ticket: Ticket, model: nn.Module) -> bool:
    """Whether the ticket was made from the weights that ``model`` has now."""
    parameters = dict(model.named_parameters())
    return ticket.meta.get("fingerprint") == fingerprint({n: parameters[n] for n in ticket.masks if n in parameters})


def describe(ticket: Ticket) -> str:
    """One line: scorer, sparsity, weights left, emptied layers."""
    rest = f"; nothing left of {', '.join(ticket.emptied)}" if ticket.emptied else ""
    scorer = ticket.meta.get("scorer", "a ticket")
    return f"{scorer} kept {ticket.kept:,} of {ticket.total:,} weights ({ticket.sparsity:.2%} sparse){rest}"


def _tickets(
    job: Job, task: Task, model: nn.Module, options: dict[str, Any], folder: Path, say: Say
) -> dict[str, Ticket]:
    assert job.scoring is not None
    model.train(job.scoring.mode == "train")
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.eval()
    made = {}
    for name, plan in job.plans.items():
        file = folder / f"{name}.safetensors"
        if not file.exists():
            batches = task.batches(job.scoring.samples, job.scoring.batch_size, seed=job.seed)
            ticket = prune(model.to(job.device), batches, seed=job.seed, **{**options, **plan})
            ticket.save(file)
            say(f"prune: {describe(ticket)} -> {file}")
        made[name] = Ticket.load(file)
    return made


def _trainer(job: Job, task: Task, backbone: nn.Module | None = None) -> Train:
    """What scorers that need training train with: the task's own runner.

    It trains a backbone, or, where the ``backbone`` that a whole model is made of is given, that whole model.
    """

    def run(model: nn.Module, ticket: Ticket, start: int = 0, stop: int | None = None) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            train_between(job.setting(), task, model, ticket, Path(scratch), start, stop, backbone)

    return run


def _classifier_pattern(job: Job, model: nn.Module) -> tuple[str, ...]:
    """The classifier belongs to the source task: every new task puts its own head there, so it is left alone."""
    classifier = job.provider.classifier(model)
    return (f"{classifier}.*",) if classifier else ()
