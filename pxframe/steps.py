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
from pxframe.threshold import global_masks
from pxframe.ticket import Ticket
from pxframe.ticket_file import fingerprint

Say = Any  # a function that takes one line of text


def rehearse(job: Job, ticket: Ticket | None = None) -> None:
    """Build everything once, in a scratch folder, so that mistakes in a head or an optimizer show before any work.

    Raises:
        PxframeError: what cannot be built; or ``ticket`` does not fit the backbone.
    """
    with seeded(job.seed, torch.device("cpu")), tempfile.TemporaryDirectory() as scratch:
        model = job.provider.build(**job.backbone)
        if ticket is not None:
            ticket.check(model)
        for name, task in (("pretrain", job.pretrain), *((f"tasks.{n}", t) for n, t in job.tasks.items())):
            if task is not None:
                with within(name):
                    task.runner(
                        copy.deepcopy(model),
                        job.provider,
                        work_dir=Path(scratch) / name,
                        device=job.device,
                        seed=job.seed,
                        resume=False,
                    )


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
    """Prune ``model`` once for every plan; tickets by name."""
    made = {}
    for name, plan in job.plans.items():
        file = job.work_dir / "tickets" / f"{name}.safetensors"
        if not file.exists():
            made[name] = _prune(job, model, plan, say)
            made[name].save(file)
            say(f"prune: {describe(made[name])} -> {file}")
        made[name] = Ticket.load(file)
    return made


def random_ticket(job: Job, like: Ticket) -> Ticket:
    """A ticket of the same weights and exactly the same number kept, chosen at random."""
    generator = torch.Generator().manual_seed(job.seed)
    scores = {name: torch.rand(mask.shape, generator=generator) for name, mask in like.masks.items()}
    every = {name: torch.ones_like(mask) for name, mask in like.masks.items()}
    return Ticket(global_masks(scores, every, like.kept), {"scorer": "random", "seed": job.seed})


def transferred(
    job: Job, name: str, variant: str, model: nn.Module, ticket: Ticket | None, total: int, say: Say
) -> dict[str, Any]:
    """Train and evaluate one task from the backbone's weights, all of them or a ticket's; a row of the results.

    ``total`` is the number of the backbone's prunable weights.
    """
    work_dir = job.work_dir / name / variant.replace("/", "-")
    file = work_dir / "result.json"
    if file.exists():
        return json.loads(file.read_text(encoding="utf-8"))
    task = job.tasks[name]
    start = copy.deepcopy(model)
    if ticket is not None and ticket.start:
        ticket.rewind(start)
    with seeded(job.seed, torch.device("cpu")):
        row = _train(job, f"{name} {variant}", task, start, ticket, work_dir)
    row = {
        "task": name,
        "variant": variant,
        **row,
        "sparsity": ticket.sparsity if ticket else 0.0,
        "prunable_left": ticket.kept if ticket else total,
        "prunable_total": total,
    }
    write_json(file, row)
    say(f"{name}, {variant}: {row['metric']} {row['value']:.2f} in {row['seconds']:.0f} s")
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


def _prune(job: Job, model: nn.Module, plan: dict[str, Any], say: Say) -> Ticket:
    if job.scoring is None:
        raise PxframeError("nothing to score on: the config has neither prune.data nor pretrain")
    task, samples, batch_size = job.scoring
    plan = {"exclude": _classifier_pattern(job, model), **plan}
    batches = task.batches(samples, batch_size, seed=job.seed)
    return prune(model.to(job.device), batches, train=_trainer(job, task), seed=job.seed, **plan)


def _trainer(job: Job, task: Task) -> Train:
    """What scorers that need training train with: the scoring task's own runner."""

    def train(model: nn.Module, ticket: Ticket, start: int = 0, stop: int | None = None) -> None:
        from pxframe.runner_hooks import TicketHook, Window

        with tempfile.TemporaryDirectory() as scratch:
            classifier = job.provider.classifier(model)
            runner = task.runner(
                model, job.provider, work_dir=Path(scratch), device=job.device, seed=job.seed, resume=False
            )
            runner.register_hook(TicketHook(ticket, classifier))
            Window(start, stop).run(runner)

    return train


def _classifier_pattern(job: Job, model: nn.Module) -> tuple[str, ...]:
    """The classifier belongs to the source task: every new task puts its own head there, so it is left alone."""
    classifier = job.provider.classifier(model)
    return (f"{classifier}.*",) if classifier else ()


def _train(job: Job, where: str, task: Task, model: nn.Module, ticket: Ticket | None, work_dir: Path) -> dict[str, Any]:
    """Train ``model`` in place on ``task`` and evaluate it."""
    from pxframe.epoch_bar import EpochBar
    from pxframe.runner_hooks import TicketHook

    start = time.perf_counter()
    classifier = job.provider.classifier(model)  # before the task strips it
    runner = task.runner(model, job.provider, work_dir=work_dir, device=job.device, seed=job.seed, resume=job.resume)
    if ticket is not None:
        runner.register_hook(TicketHook(ticket, classifier))
    runner.register_hook(EpochBar(where))
    runner.train()
    metrics = runner.test()
    return {
        "metric": task.metric,
        "value": float(metrics[task.metric]),
        "metrics": {key: float(value) for key, value in metrics.items()},
        "seconds": time.perf_counter() - start,
        "epochs": runner.max_epochs,
    }
