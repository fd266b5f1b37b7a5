"""A job: one backbone, its tickets, and the tasks they are transferred to, built and checked before any work begins."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from pxframe.base import ranks
from pxframe.base.devices import checked_device
from pxframe.base.errors import PxframeError, within
from pxframe.base.versions import versions
from pxframe.job.config import JobConfig, chosen_tasks
from pxframe.job.made import existing, reuse
from pxframe.job.places import checked_folder
from pxframe.job.prunings import Pruning, prunings
from pxframe.plugin.backbone import Backbone
from pxframe.plugin.registry import build, packages_of
from pxframe.plugin.task import Task
from pxframe.slimming.groups import load_torch_pruning
from pxframe.ticket.ticket import Ticket
from pxframe.training.run import Setting

Value = TypeVar("Value")


#: Told what happens, a line of text at a time.
Say = Callable[[str], None]


@dataclass(frozen=True)
class ScoredOn:
    """The training images that scorers read.

    Attributes:
        task: whose images they are; None: of each task its own, as its whole model is pruned.
        config: of that task.
        samples: how many images.
        batch_size: of scoring.
        mode: ``"train"`` or ``"eval"``, of the batch norms of the network scored.
    """

    task: Task | None
    config: Mapping[str, Any] | None
    samples: int
    batch_size: int
    mode: str


@dataclass
class Job:
    """What a config describes, built and checked; :meth:`repetitions` gives a job of one seed each.

    Attributes:
        config: the config itself.
        seeds: one for each repetition.
        device: ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
        root: folder of the whole job.
        resume: use what an earlier run left in ``root``.
        provider: builds the network, from the options ``config.backbone``.
        pretrain: the task that the backbone is trained on before it is pruned, or None.
        prunings: how each ticket is made, by name.
        scored_on: the images that scorers read.
        tasks: the tasks chosen, by name.
        given: a ticket to transfer instead of pruning, by name, or None.
        told: the changes of settings since an earlier run that the user was told of (:func:`pxframe.job.made.reuse`).
        only: names of the tickets that this process deals with; None: all of them.
        makes: the files that this process may make; None: all of them. It reads the others, and never makes them.
    """

    config: JobConfig
    seeds: tuple[int, ...]
    device: str
    root: Path
    resume: bool
    provider: Backbone
    pretrain: Task | None
    prunings: dict[str, Pruning]
    scored_on: ScoredOn
    tasks: dict[str, Task]
    given: tuple[str, Ticket] | None = None
    told: set[str] = field(default_factory=set)
    only: Collection[str] | None = None
    makes: Collection[Path] | None = None

    @classmethod
    def from_config(
        cls,
        config: JobConfig,
        *,
        device: str = "cpu",
        tasks: Iterable[str] | None = None,
        work_dir: str | Path | None = None,
        resume: bool = False,
        given: tuple[str, Ticket] | None = None,
    ) -> Job:
        """Build a job from a config that :func:`pxframe.job.config.load_config` gave.

        Args:
            tasks: names of the tasks to run; default: all.
            work_dir: folder of the whole job; default: the config's.
            given: name and ticket, to be transferred instead of pruning.

        Raises:
            PxframeError: whatever is wrong in the config: names, options, missing data, no GPU.
        """
        checked_device(device)
        chosen = chosen_tasks(config, tasks)
        provider = build("backbone", {"type": config.backbone.get("type")}, "backbone")
        pretrain = build("task", config.pretrain, "pretrain") if config.pretrain else None
        built = {name: build("task", config.tasks[name], f"task {name!r}") for name in chosen}
        job = cls(
            config=config,
            seeds=config.seeds,
            device=device,
            root=config.work_dir if work_dir is None else checked_folder(work_dir),
            resume=resume,
            provider=provider,
            pretrain=pretrain,
            prunings={} if given is not None else prunings(config.prune),
            scored_on=_scored_on(config, pretrain, built, given),
            tasks=built,
            given=given,
        )
        job._check()
        return job

    def _check(self) -> None:
        """Refuse what does not go together, and read the data."""
        config, whole = self.config, self.whole
        if whole and self.given is not None:
            raise PxframeError("prune.whole makes tickets of each task's own; it cannot be used with a given ticket")
        if config.slim and whole:
            raise PxframeError("slim takes out channels of the backbone alone; it cannot be used with prune.whole")
        if config.slim:
            load_torch_pruning()
        if config.transfer == "mask+weights" and (whole or (self.given is None and self.pretrain is None)):
            raise PxframeError("transfer='mask+weights' trains tickets of the backbone on 'pretrain': give one")
        for name, one in self.tasks.items():
            if whole and not one.whole:
                raise PxframeError(f"tasks.{name}: its model cannot be scored as a whole; leave prune.whole out")
        named = {"pretrain": self.pretrain, **{f"tasks.{name}": one for name, one in self.tasks.items()}}
        if self.scored_on.task not in named.values():
            named["prune.data"] = self.scored_on.task
        for where, task in named.items():
            if task is not None:
                with within(where):
                    task.prepare()

    @property
    def whole(self) -> bool:
        """Whether each task's whole model is pruned, not the backbone alone, once."""
        return self.config.prune.whole

    @property
    def seed(self) -> int:
        """That of the first repetition."""
        return self.seeds[0]

    @property
    def folder(self) -> Path:
        """Folder of this repetition; its place does not depend on how many others there are."""
        return self.root / f"seed-{self.seed}"

    @property
    def backbone(self) -> dict[str, Any]:
        """The provider's options."""
        return {key: value for key, value in self.config.backbone.items() if key != "type"}

    def repetitions(self) -> list[Job]:
        """A job of one seed each."""
        return [replace(self, seeds=(seed,)) for seed in self.seeds]

    def telling(self, seed: int, say: Say) -> Say:
        """``say``, with the seed in front of every line where this job has several."""
        return (lambda line: say(f"seed {seed}: {line}")) if len(self.seeds) > 1 else say

    def setting(self) -> Setting:
        """What the runs of this repetition have in common."""
        return Setting(self.provider, self.device, self.seed, self.config.vis_backends)

    def reuse(
        self,
        file: Path,
        recipe: Mapping[str, Any],
        read: Callable[[Path], tuple[Value, Any]],
        say: Say,
        belongings: Path | None = None,
    ) -> Value | None:
        """What an earlier run left in ``file``; None if this process is to make it (:func:`pxframe.job.made.reuse`).

        Raises:
            pxframe.job.made.NotMade: it is another process that is to make it.
        """
        if self.makes is not None and file not in self.makes:
            return existing(file, recipe, read)
        return reuse(file, recipe, read, self.root, say, belongings, self.told)

    def recipe(self, stage: str, uses: Mapping[str, str], **depends: Any) -> dict[str, Any]:
        """What the outcome of a stage depends on.

        Args:
            uses: by kind of plug-in, the name of the one that does the work, beside the backbone's provider.
            depends: settings of this stage, and digests of what it starts from.
        """
        # Random draws and rounding of training differ with the number of processes. Scores do not.
        processes = {"processes": ranks.size()} if stage != "prune" and ranks.size() > 1 else {}
        named = {"backbone": self.config.backbone["type"], **uses}
        packages = sorted({package for kind, name in named.items() for package in packages_of(kind, name)})
        return {
            "stage": stage,
            **depends,
            "backbone": self.config.backbone,
            "seed": self.seed,
            "device": self.device.partition(":")[0],  # which of several GPUs makes no difference
            **processes,
            "versions": versions(*packages),
        }


def _scored_on(config: JobConfig, pretrain: Task | None, tasks: Mapping[str, Task], given: object) -> ScoredOn:
    prune = config.prune
    task, described = pretrain, config.pretrain
    if prune.data:
        task, described = build("task", prune.data, "prune: data"), dict(prune.data)
    if prune.whole:
        task, described = None, None
    elif task is None and given is not None and tasks:  # controls read the size of an image, if anything
        name, task = next(iter(tasks.items()))
        described = config.tasks[name]
    elif task is None:
        raise PxframeError("the config says nothing about images to score on: give prune.data or pretrain")
    mode = prune.mode or ("eval" if pretrain else "train")
    return ScoredOn(task, described, prune.samples, prune.batch_size or prune.samples, mode)
