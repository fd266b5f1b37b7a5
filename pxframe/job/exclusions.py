"""What a job leaves alone: the backbone's classifier, or what its config excludes; tried out before any work."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from pxframe.base.errors import blaming, some, within
from pxframe.job.job import Job
from pxframe.job.prunings import Pruning
from pxframe.network.net import Net
from pxframe.passes.batches import Batches
from pxframe.plugin.backbone import Backbone
from pxframe.plugin.task import Task
from pxframe.pruning.arguments import device_of, full_masks
from pxframe.pruning.plan import patterns
from pxframe.scoring.prunable import prunable
from pxframe.selection.rows import fused_rows, held_rows, is_rows, whole


def default_exclude(provider: Backbone, model: nn.Module) -> tuple[str, ...]:
    """What tickets of a backbone leave alone where the config says nothing: its classifier.

    It belongs to the source task: every new task puts its own head there.
    """
    classifier = provider.classifier(model)
    return (f"{classifier}.*",) if classifier else ()


def check_exclude(job: Job, model: nn.Module, task: Task) -> None:
    """Try what the config excludes on the model to be pruned, before it is trained.

    Which rows of a fused weight make its queries is read from a forward pass, so two images are read.

    Args:
        task: whose images score the model.

    Raises:
        PxframeError: a pattern that matches nothing, or that leaves nothing to prune.
    """
    every = _given(job.prunings)
    if not every:
        return
    with within("prune"):
        first = Batches(task.batches(2, 2, seed=job.seed), device_of(model)).first()
        example = None if first is None else first[0]
        for exclude in every:
            names = prunable(model, example, whole(exclude))
            if any(map(is_rows, exclude)):
                net = Net(model, full_masks(model, names))
                with blaming("exclude"):
                    held_rows(net.masks, fused_rows(net, example, exclude), exclude)


def replaced_default(job: Job, model: nn.Module) -> list[str]:
    """A line for whatever the config excludes instead of the default, where the classifier is then pruned."""
    default, lines = default_exclude(job.provider, model), []
    for exclude in _given(job.prunings):
        pruned = [
            name
            for name, parameter in model.named_parameters()
            if parameter.ndim >= 2 and _matches(name, default) and not _matches(name, exclude)
        ]
        if pruned:
            given = ", ".join(map(repr, exclude)) or "nothing"
            lines.append(
                f"prune: the config excludes {given} in place of the default, {default[0]!r}: "
                f"{some(pruned)} is pruned and counted too"
            )
    return lines


def _given(prunings: Mapping[str, Pruning]) -> list[tuple[str, ...]]:
    """What the prunings exclude, each once; those that leave it to the default are left out."""
    every: Iterable[Any] = (one.settings.get("exclude") for one in prunings.values())
    return list(dict.fromkeys(patterns(exclude) for exclude in every if exclude is not None))


def _matches(name: str, given: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in given)
