"""A job: one backbone, its tickets, and the tasks they are transferred to, checked before any work begins."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pxframe.base.errors import PxframeError, near, some, within
from pxframe.base.files import write_json
from pxframe.base.versions import checked_device
from pxframe.plugin.backbone import Backbone
from pxframe.plugin.registry import build
from pxframe.plugin.task import Task
from pxframe.pruning.granularity import build_granularity
from pxframe.pruning.plan import Plan
from pxframe.training.run import Setting

#: Which weights a ticket may be transferred with; see :class:`Job`.
TRANSFERS = (None, "mask", "mask+weights")


@dataclass(frozen=True)
class Scoring:
    """The task whose training images are scored on (None: of each task its own), how many, and how.

    ``mode`` is the network's, ``"train"`` or ``"eval"``.
    """

    task: Task | None
    samples: int
    batch_size: int
    mode: str


@dataclass
class Job:
    """What a config describes, built and checked.

    Attributes:
        seeds: one a repetition; :meth:`repetitions` gives the job of each.
        backbone: the provider's options; ``provider`` builds the network from them.
        plans: ticket name -> arguments of :func:`pxframe.prune`; one a sparsity.
        scoring: the images to score on; None where nothing is to be pruned.
        whole: prune each task's whole model, head included, on its own images; not the backbone alone, once.
        transfer: which weights a ticket is transferred with: ``"mask"``, those of the dense pre-training;
            ``"mask+weights"``, the ticket's own, trained on the ``pretrain`` task where it has none;
            None, its own where it has some, else those of the dense pre-training.
        vis_backends: configs for :class:`pxframe.training.curves.Recorder`.
        resume: go on where an earlier run of the same config stopped.
    """

    seeds: tuple[int, ...]
    device: str
    work_dir: Path
    resume: bool
    provider: Backbone
    backbone: dict[str, Any]
    pretrain: Task | None
    plans: dict[str, dict[str, Any]]
    scoring: Scoring | None
    tasks: dict[str, Task]
    whole: bool = False
    transfer: str | None = None
    vis_backends: tuple[dict[str, Any], ...] = ()

    @classmethod
    def from_config(
        cls,
        config: Mapping[str, Any],
        *,
        device: str = "cpu",
        tasks: Iterable[str] | None = None,
        work_dir: str | Path | None = None,
        resume: bool = False,
        scored: bool = True,
    ) -> Job:
        """Build a job from a config that :func:`pxframe.job.config.load_config` gave.

        Args:
            tasks: names of the tasks to run; default: all.
            scored: False when a ticket is given and nothing will be pruned by data.

        Raises:
            PxframeError: whatever is wrong in the config: names, options, missing data, no GPU.
        """
        checked_device(device)
        chosen = list(config["tasks"]) if tasks is None else list(tasks)
        for name in chosen:
            if name not in config["tasks"]:
                raise PxframeError(f"there is no task {name!r} in the config{near(name, config['tasks'])}")
        options = _plain(config["backbone"])
        provider = build("backbone", {"type": options.pop("type", None)}, "backbone")
        pretrain = build("task", _plain(config["pretrain"]), "pretrain") if config.get("pretrain") else None
        prune, seeds = _plain(config["prune"]), _plain(config["seed"])
        mode = prune.pop("mode", "eval" if pretrain else "train")
        if mode not in ("train", "eval"):
            raise PxframeError(f"prune: 'mode' must be 'train' or 'eval', got {mode!r}")
        data = prune.pop("data", None)
        samples = prune.pop("samples", 100)
        batch_size = prune.pop("batch_size", samples)
        for key, value in {"samples": samples, "batch_size": batch_size}.items():
            if type(value) is not int or value < 1:
                raise PxframeError(f"prune: {key!r} must be a whole number above 0, got {value!r}")
        whole = prune.pop("whole", False)
        if whole and data:
            raise PxframeError("prune.whole scores each task's model on its own images; leave prune.data out")
        source = build("task", data, "prune: data") if data else pretrain
        if scored and source is None and not whole:
            raise PxframeError("the config says nothing about images to score on: give prune.data or pretrain")
        if whole and not scored:
            raise PxframeError("prune.whole makes tickets of each task's own; it cannot be used with a given ticket")
        boards = _plain(config.get("vis_backends") or ())
        if not (isinstance(boards, (list, tuple)) and all(isinstance(board, Mapping) for board in boards)):
            raise PxframeError(f"'vis_backends' must be a list of dict(type=...), got {boards!r}")
        transfer = config.get("transfer")
        if transfer not in TRANSFERS:
            raise PxframeError(f"'transfer' must be one of {TRANSFERS}, got {transfer!r}")
        if transfer == "mask+weights" and (whole or (scored and pretrain is None)):
            raise PxframeError("transfer='mask+weights' trains tickets of the backbone on 'pretrain': give one")
        job = cls(
            seeds=tuple(seeds if isinstance(seeds, (list, tuple)) else [seeds]),
            device=device,
            work_dir=Path(str(work_dir or config["work_dir"])),
            resume=resume,
            provider=provider,
            backbone=options,
            pretrain=pretrain,
            plans=_plans(prune),
            scoring=Scoring(source, samples, batch_size, mode) if scored else None,
            tasks={name: build("task", _plain(config["tasks"][name]), f"task {name!r}") for name in chosen},
            whole=whole,
            transfer=transfer,
            vis_backends=tuple(boards),
        )
        for name, one in job.tasks.items():
            if whole and not one.whole:
                raise PxframeError(f"tasks.{name}: its model cannot be scored as a whole; leave prune.whole out")
        named = {"pretrain": pretrain, "prune.data": source if scored else None}
        named |= {f"tasks.{name}": one for name, one in job.tasks.items()}
        for where, task in named.items():
            if task is not None and not (where == "prune.data" and task is pretrain):
                with within(where):
                    task.prepare()
        return job

    @property
    def seed(self) -> int:
        """That of the first repetition."""
        return self.seeds[0]

    def setting(self, resume: bool = False) -> Setting:
        """What the runs of this repetition have in common."""
        return Setting(self.provider, self.device, self.seed, resume, self.vis_backends)

    def repetitions(self) -> list[Job]:
        """A job of one seed each, in a folder of its own where there are several."""
        if len(self.seeds) == 1:
            return [self]
        return [replace(self, seeds=(s,), work_dir=self.work_dir / f"seed-{s}") for s in self.seeds]

    def claim(self, settings: Mapping[str, Any]) -> None:
        """Take ``work_dir`` for these settings: a fresh folder, or with ``resume`` one that an equal job began.

        Raises:
            PxframeError: the folder holds another job's work, or this one's and ``resume`` was not asked for.
        """
        record = self.work_dir / "job.json"
        wanted = json.loads(json.dumps(_plain(settings), default=str))
        if not record.exists():
            write_json(record, wanted)
            return
        if not self.resume:
            raise PxframeError(
                f"{self.work_dir} already holds a run: add --resume to go on, or choose another --work-dir"
            )
        found = json.loads(record.read_text(encoding="utf-8"))
        if found != wanted:
            changed = _differences(found, wanted)
            raise PxframeError(
                f"{self.work_dir} was begun with other settings: {some(changed)}; use another --work-dir"
            )


def _plans(prune: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """A plan for every scorer and sparsity; two of one type are told apart by their options."""
    with within("prune"):
        unit = build_granularity(prune.get("granularity", "weight"))
        levels = _list(prune.pop("sparsity", unit.default_sparsity))
        scorers = [dict(s) if isinstance(s, Mapping) else {"type": s} for s in _list(prune.pop("scorer", "px"))]
        for key, values in {"sparsity": levels, "scorer": scorers}.items():
            if not values:
                raise PxframeError(f"{key!r} is an empty list")
        if not all(isinstance(pattern, str) for pattern in _list(prune.get("exclude", ""))):
            raise PxframeError(f"'exclude' must be a name, or a list of names or patterns, got {prune['exclude']!r}")
        plans: dict[str, dict[str, Any]] = {}
        for level in levels:
            for scorer in scorers:
                method = build("scorer", {key: value for key, value in scorer.items() if key != "rounds"})
                Plan(
                    level,
                    scorer.get("rounds", method.rounds),
                    prune.get("schedule", "exponential"),
                    prune.get("scope", "global"),
                    prune.get("distribution", "uniform"),
                    unit,
                )
                name = method.name
                if sum(other["type"] == name for other in scorers) > 1:
                    name = "-".join([name, *(f"{key}={value}" for key, value in scorer.items() if key != "type")])
                name = f"{name}-{100 * level:.2f}".replace("/", "-")
                if name in plans:
                    raise PxframeError(f"there would be two tickets {name!r}: a scorer or a sparsity is listed twice")
                plans[name] = {"scorer": scorer, "sparsity": level, **prune}
    return plans


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _plain(value: Any) -> Any:
    """mmengine's config types as plain dicts and lists."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_plain(item) for item in value)
    return value


def _differences(old: Any, new: Any, path: str = "") -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted(old.keys() | new.keys())
        return [d for k in keys for d in _differences(old.get(k), new.get(k), f"{path}.{k}" if path else k)]
    return [] if old == new else [f"{path} was {old!r}, now {new!r}"]
