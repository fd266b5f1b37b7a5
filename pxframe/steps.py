"""The steps of a job: pre-train, prune, transfer.

Each leaves one file, written whole; a step whose file is there is done.
"""

from __future__ import annotations

import copy
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from pxframe.errors import PxframeError, within
from pxframe.files import replacing, write_json
from pxframe.host import host
from pxframe.job import Job
from pxframe.net import Train
from pxframe.preserve import seeded
from pxframe.pruning import prune
from pxframe.task import Task
from pxframe.ticket import Ticket
from pxframe.ticket_file import fingerprint

Say = Any  # a function that takes one line of text


def rehearse(job: Job, ticket: Ticket | None = None) -> None:
    """Build everything once, in a scratch folder, so that mistakes in a head or an optimizer show before any work.

    Raises:
        PxframeError: what cannot be built; or ``ticket`` does not fit the backbone.
    """
    from pxframe.recording import Recorder

    with seeded(job.seed, torch.device("cpu")), tempfile.TemporaryDirectory() as scratch:
        model = job.provider.build(**job.backbone)
        if ticket is not None:
            ticket.check(model)
        if job.vis_backends:
            Recorder(job.vis_backends, "", Path(scratch))
        for name, task in (("pretrain", job.pretrain), *((f"tasks.{n}", t) for n, t in job.tasks.items())):
            if task is not None:
                with within(name):
                    _runner(job, task, copy.deepcopy(model), Path(scratch) / name)


def pretrained(job: Job, say: Say) -> nn.Module:
    """The backbone to prune: built, and trained on the ``pretrain`` task where the config has one."""
    with seeded(job.seed, torch.device("cpu")):
        model = job.provider.build(**job.backbone)
    if job.pretrain is None:
        return model
    file = job.work_dir / "pretrained.safetensors"
    if not file.exists():
        result = _train(job, "pretrain", job.pretrain, model, None, job.work_dir / "pretrain")
        with replacing(file) as scratch:
            save_file({n: t.contiguous().cpu() for n, t in model.state_dict().items()}, scratch)
        say(f"pretrain: {job.pretrain.metric} {result['value']:.1f} in {result['seconds']:.0f} s")
    model.load_state_dict(load_file(file))
    # As training leaves it, also where an earlier run did the training: layout and mode must not tell a ticket.
    return model.cpu().to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]


def tickets(job: Job, model: nn.Module, say: Say) -> dict[str, Ticket]:
    """Prune the backbone once for every plan; tickets by name."""
    assert job.scoring is not None  # else the job would not have been built
    assert job.scoring.task is not None
    exclude = _classifier_pattern(job, model)
    options = {"exclude": exclude, "train": _trainer(job, job.scoring.task)}
    return _tickets(job, job.scoring.task, model, options, job.work_dir / "tickets", say)


def whole_tickets(job: Job, name: str, model: nn.Module, say: Say) -> dict[str, Ticket]:
    """Prune the whole model of task ``name``, head included, once for every plan; tickets by name."""
    from pxframe.runner_hooks import initialised

    task = job.tasks[name]
    with tempfile.TemporaryDirectory() as scratch:
        runner = _runner(job, task, copy.deepcopy(model), Path(scratch))
        if not runner.max_epochs:
            raise PxframeError(f"tasks.{name}: its head is fitted, not trained: prune.whole has nothing to score there")
        start = initialised(runner)
    options = {"loss": task.loss, "train": _trainer(job, task, model)}
    return _tickets(job, task, start.eval(), options, job.work_dir / "tickets" / name, say)


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
        result = _train(job, f"{name} on pretrain", job.pretrain, sparse, ticket, job.work_dir / "pretrain" / name)
        start = {n: t.cpu().contiguous() for n, t in sparse.state_dict().items()}
        Ticket(ticket.masks, ticket.meta, start).save(file)
        say(f"pretrain, {name}: {result['metric']} {result['value']:.1f} in {result['seconds']:.0f} s -> {file}")
    return Ticket.load(file)


def transferred(
    job: Job, name: str, variant: str, model: nn.Module, ticket: Ticket | None, total: int, say: Say
) -> dict[str, Any]:
    """Train and evaluate one task from the backbone's weights, all of them or a ticket's; a row of the results.

    ``total`` is the number of the backbone's prunable weights.
    """
    work_dir = job.work_dir / name / variant
    file = work_dir / "result.json"
    if file.exists():
        return json.loads(file.read_text(encoding="utf-8"))
    task = job.tasks[name]
    start = copy.deepcopy(model)
    with seeded(job.seed, torch.device("cpu")):
        row = _train(job, f"{name} {variant}", task, start, ticket, work_dir)
    row = {
        "task": name,
        "variant": variant,
        "method": ticket.meta.get("scorer", "ticket") if ticket else "dense",
        "seed": job.seed,
        **row,
        "sparsity": ticket.sparsity if ticket else 0.0,
        "prunable_left": ticket.kept if ticket else total,
        "prunable_total": total,
    }
    write_json(file, row)
    ill = f"; diverged: the loss was not finite in epoch {row['diverged']}" if row["diverged"] else ""
    say(f"{name}, {variant}: {row['metric']} {row['value']:.2f} in {row['seconds']:.0f} s{ill}")
    host().notify("pxframe_task_done", task=name, variant=variant, result=row)
    return row


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

    def train(model: nn.Module, ticket: Ticket, start: int = 0, stop: int | None = None) -> None:
        from pxframe.runner_hooks import StateHook, TicketHook, Window

        with tempfile.TemporaryDirectory() as scratch:
            classifier = job.provider.classifier(model if backbone is None else backbone)
            runner = _runner(job, task, model if backbone is None else copy.deepcopy(backbone), Path(scratch))
            if backbone is not None:
                runner.register_hook(StateHook(model.state_dict()), priority="HIGHEST")
            runner.register_hook(TicketHook(ticket, classifier))
            Window(start, stop).run(runner)
            if backbone is not None:
                model.load_state_dict(runner.model.state_dict())

    return train


def _runner(job: Job, task: Task, model: nn.Module, work_dir: Path, resume: bool = False) -> Any:
    return task.runner(model, job.provider, work_dir=work_dir, device=job.device, seed=job.seed, resume=resume)


def _classifier_pattern(job: Job, model: nn.Module) -> tuple[str, ...]:
    """The classifier belongs to the source task: every new task puts its own head there, so it is left alone."""
    classifier = job.provider.classifier(model)
    return (f"{classifier}.*",) if classifier else ()


def _train(job: Job, where: str, task: Task, model: nn.Module, ticket: Ticket | None, work_dir: Path) -> dict[str, Any]:
    """Train ``model`` in place on ``task``, evaluate it, and save what was trained for use without this library."""
    from pxframe.epoch_bar import EpochBar
    from pxframe.recording import Recorder
    from pxframe.runner_hooks import Divergence, TicketHook

    start = time.perf_counter()
    classifier = job.provider.classifier(model)  # before the task strips it
    runner = _runner(job, task, model, work_dir, resume=job.resume)
    if ticket is not None:
        runner.register_hook(TicketHook(ticket, classifier))
    divergence = Divergence()
    for hook in (EpochBar(where), divergence):
        runner.register_hook(hook)
    if job.vis_backends:
        runner.register_hook(Recorder(job.vis_backends, f"{where} seed {job.seed}", work_dir))
    runner.train()
    metrics = runner.test()
    with replacing(work_dir / "model.pth") as scratch:
        torch.save(task.export(runner.model, classifier), scratch)
    return {
        "metric": task.metric,
        "value": float(metrics[task.metric]),
        "metrics": {key: float(value) for key, value in metrics.items()},
        "seconds": time.perf_counter() - start,
        "epochs": runner.max_epochs,
        "diverged": divergence.epoch,
    }
