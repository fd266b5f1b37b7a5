"""The steps of a job around its tickets (:mod:`pxframe.job.tickets`): rehearse, pre-train, transfer.

Each leaves one file, written whole; a step whose file is there is done.
"""

from __future__ import annotations

import copy
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from pxframe.base.errors import PxframeError, blaming, within
from pxframe.base.files import replacing, write_json
from pxframe.base.undisturbed import seeded
from pxframe.job.cells import method_of
from pxframe.job.job import Job
from pxframe.plugin.host import host
from pxframe.ticket.ticket import Ticket
from pxframe.training.run import close, train

Say = Any


def rehearse(job: Job, ticket: Ticket | None = None) -> None:
    """Build everything once, in a scratch folder, so that mistakes in a head or an optimizer show before any work.

    Raises:
        PxframeError: what cannot be built; or ``ticket`` does not fit the backbone.
    """
    from pxframe.training.curves import Recorder

    with seeded(job.seed, torch.device("cpu")), tempfile.TemporaryDirectory() as scratch:
        with blaming("backbone"):
            model = job.provider.build(**job.backbone)
        if ticket is not None:
            ticket.check(model)
        if job.vis_backends:
            Recorder(job.vis_backends, "", Path(scratch))
        for name, task in (("pretrain", job.pretrain), *((f"tasks.{n}", t) for n, t in job.tasks.items())):
            if task is not None:
                with within(name):
                    runner = job.setting().runner(task, copy.deepcopy(model), Path(scratch) / name)
                    if job.whole and task is not job.pretrain and not runner.max_epochs:
                        raise PxframeError("its head is fitted, not trained: prune.whole has nothing to score there")
                    task.rehearse(runner)
                close(runner)


def pretrained(job: Job, say: Say) -> nn.Module:
    """The backbone to prune: built, and trained on the ``pretrain`` task where the config has one."""
    with seeded(job.seed, torch.device("cpu")):
        model = job.provider.build(**job.backbone)
    if job.pretrain is None:
        return model
    file = job.work_dir / "pretrained.safetensors"
    if not file.exists():
        trained = copy.deepcopy(model)
        result = train(job.setting(job.resume), "pretrain", job.pretrain, trained, None, job.work_dir / "pretrain")
        with replacing(file) as scratch:
            save_file({n: t.contiguous().cpu() for n, t in trained.state_dict().items()}, scratch)
        say(f"pretrain: {job.pretrain.metric} {result['value']:.1f} in {result['seconds']:.0f} s")
    own = model.state_dict()
    # A task with a head of its own has no use for the backbone's classifier, and leaves none.
    model.load_state_dict({**own, **{name: value for name, value in load_file(file).items() if name in own}})
    # As training leaves it, also where an earlier run did the training: layout must not tell a ticket.
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


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
        row = train(job.setting(job.resume), f"{name} {variant}", task, start, ticket, work_dir)
    row = {
        "task": name,
        "variant": variant,
        "method": method_of(variant, ticket),
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
