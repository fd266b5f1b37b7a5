"""A rehearsal of a job: everything is built once, and thrown away, before any work begins."""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path

import torch

from pxframe.base.errors import PxframeError, blaming, within
from pxframe.job.exclusions import check_exclude, replaced_default
from pxframe.job.job import Job, Say
from pxframe.running.undisturbed import seeded
from pxframe.training.hooks.reports import Recorder
from pxframe.training.run import close


def rehearse(job: Job, say: Say) -> None:
    """Build everything once, in a scratch folder, so that mistakes in a head or an optimizer show before any work.

    Args:
        say: told if the config excludes other weights from pruning than the default.

    Raises:
        PxframeError: what cannot be built; or the given ticket does not fit the backbone.
    """
    with seeded(job.seed, torch.device("cpu")), tempfile.TemporaryDirectory() as scratch:
        with blaming("backbone"):
            model = job.provider.build(**job.backbone)
        if job.given is not None:
            job.given[1].check(model)
        if job.scored_on.task is not None:
            check_exclude(job, model, job.scored_on.task)
            for line in replaced_default(job, model):
                say(line)
        if job.config.vis_backends:
            Recorder(job.config.vis_backends, "", Path(scratch))
        for name, task in (("pretrain", job.pretrain), *((f"tasks.{n}", t) for n, t in job.tasks.items())):
            if task is not None:
                with within(name):
                    runner = job.setting().runner(task, copy.deepcopy(model), Path(scratch) / name)
                    if job.whole and task is not job.pretrain and not runner.max_epochs:
                        raise PxframeError("its head is fitted, not trained: prune.whole has nothing to score there")
                    if job.whole and task is not job.pretrain:
                        check_exclude(job, runner.model, task)
                    task.rehearse(runner)
                close(runner)
