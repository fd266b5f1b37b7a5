"""Reading a job's config file, and refusing mistakes in it before any work begins."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from mmengine.config import Config

from pxframe.base.errors import PxframeError, near, within
from pxframe.base.options import one_of, whole_number
from pxframe.job.places import checked_folder, find_config

#: Top-level keys of a job, and what they mean.
KEYS = {
    "seed": "of every random draw; default 0. A list repeats the job, each time from the start, and gives means",
    "work_dir": "folder for everything the job writes; default work_dirs/<config name>",
    "backbone": "dict(type=PROVIDER, **options): the network to prune and transfer",
    "pretrain": "a task config: trains the backbone, with its own classifier, before it is pruned; optional",
    "prune": "how tickets are made; the keys are those of Prune",
    "tasks": "name -> task config: where the tickets are transferred to",
    "transfer": "'mask': the ticket's mask on the dense pre-training's weights; 'mask+weights': the mask and its own "
    "weights, trained on 'pretrain'; default: its own where its method gives it some, else the dense ones",
    "slim": "True takes the channels that a ticket removed out of each task's model before it is trained "
    "(docs/slim.md); default: they stay, as zeros",
    "keep_checkpoints": "True keeps the last two optimizer checkpoints of finished runs; default: model.pth alone",
    "vis_backends": "mmengine's, that curves go to: [dict(type='TensorboardVisBackend')]; '{run}' names the run",
    "custom_imports": "mmengine's: dict(imports=['my_module']), imported before anything is built",
}
#: Names of folders that a job writes for itself.
RESERVED = ("pretrain", "tickets", "evidence", "set-aside")
#: Which weights a ticket may be transferred with.
TRANSFERS = (None, "mask", "mask+weights")
_TASK_NAME = re.compile(r"[A-Za-z0-9_][\w.+=-]{0,79}", re.ASCII)


@dataclass(kw_only=True)
class Prune:
    """The keys of a config's ``prune``.

    Args:
        scorer: a name, ``dict(type=SCORER, **options)``, or a list of such; default: the registered default scorer. A
            dict may hold ``rounds``, ``sparsity`` (or ``flops``, ``params``, ``latency``), ``schedule``, ``scope``,
            ``distribution``, ``granularity``, ``exclude`` and ``refit`` of its own as well.
        sparsity: share of weights (or channels) to prune, or a list: one ticket for each.
        flops, params, latency: for channels, the share of the multiply-accumulates, the parameters or the time of one
            image that the slim network is to have (:func:`pxframe.prune`), or a list: one ticket for each.
        rounds: rounds of scoring and masking; default: the scorer's own.
        schedule: ``"exponential"`` or ``"linear"``.
        scope: ``"global"``, one threshold, ``"layer"``, one in each layer, or ``"row"``, one for each output.
        distribution: of the density over layers with ``scope="layer"``: ``"uniform"`` or ``"erk"``.
        granularity: ``"weight"``, ``"channel"``, an N:M pattern (``"2:4"``), or a dict with options.
        refit: what is done after the last round: ``"bn"``, ``"obs"``, ``"rescale"``, ``"reinit"``, or a dict with
            options; default: nothing.
        exclude: names or patterns of weights to leave alone, in place of the default: the classifier's.
        whole: True prunes each task's whole model, its new head included, on its own images; False the backbone, once.
        data: config of a task whose training images are scored on; default: that of ``pretrain``.
        samples: how many images, drawn evenly over the classes where there are any.
        batch_size: of scoring; default: all samples at once.
        mode: ``"train"`` or ``"eval"``: whether batch norm uses the batch's statistics or its own while scorers take
            the loss; all other layers are in evaluation mode. Default: ``"eval"`` after ``pretrain``, else ``"train"``.
        controls: scorers that are added beside every ticket, at its sparsity and granularity; default: those that
            plug-ins registered as controls. An empty list adds none.
    """

    scorer: Any = None
    sparsity: Any = None
    flops: Any = None
    params: Any = None
    latency: Any = None
    rounds: int | None = None
    schedule: str | None = None
    scope: str | None = None
    distribution: str | None = None
    granularity: Any = None
    refit: Any = None
    exclude: Any = None
    whole: bool = False
    data: Mapping[str, Any] | None = None
    samples: int = 100
    batch_size: int | None = None
    mode: str | None = None
    controls: Sequence[str] | None = None

    def __post_init__(self) -> None:
        whole_number("prune", "samples", self.samples)
        if self.batch_size is not None:
            whole_number("prune", "batch_size", self.batch_size)
        one_of("prune", "mode", self.mode, (None, "train", "eval"))
        patterns = listed(self.exclude) if self.exclude is not None else []
        if not all(isinstance(pattern, str) for pattern in patterns):
            raise PxframeError(f"prune: 'exclude' must be a name, or a list of names or patterns, got {self.exclude!r}")
        if self.whole and self.data:
            raise PxframeError("prune.whole scores each task's model on its own images; leave prune.data out")

    def settings(self) -> dict[str, Any]:
        """Arguments of :func:`pxframe.prune` that all scorers share, of those given, but for how much they remove."""
        from pxframe.pruning.plan import LEVELS, PLAN_KEYS  # imports torch, which the checks of a config do not need

        given = {key: getattr(self, key) for key in PLAN_KEYS if key not in LEVELS}
        return {key: value for key, value in given.items() if value is not None}


@dataclass(kw_only=True)
class JobConfig:
    """A config, checked: plain values only. The attributes are :data:`KEYS`; ``file`` is where it was read from."""

    file: str
    backbone: dict[str, Any]
    tasks: dict[str, dict[str, Any]]
    prune: Prune
    seeds: tuple[int, ...] = (0,)
    work_dir: Path = Path("work_dirs")
    pretrain: dict[str, Any] | None = None
    transfer: str | None = None
    slim: bool = False
    keep_checkpoints: bool = False
    vis_backends: list[dict[str, Any]] = field(default_factory=list)


def load_config(path: str | Path, overrides: Mapping[str, Any] | None = None) -> JobConfig:
    """Read a job's config file and check it: :func:`read_config`, then :func:`checked`."""
    return checked(read_config(path, overrides), find_config(path))


def read_config(path: str | Path, overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The values of a config file, plain and unchecked; ``overrides`` (``{"tasks.digits.epochs": 3}``) go on top.

    A path that is not there is also looked for among the configs that come with the package: ``configs/quickstart.py``
    and ``quickstart`` both name the one of the quick start. Names that begin with ``_`` are the file's own. Modules in
    the config's folder and in the current one can be named in it: both are appended to ``sys.path``.

    Raises:
        PxframeError: no such file, or an error in it.
    """
    file = find_config(path)
    for beside in (file.resolve().parent, Path.cwd()):
        if str(beside) not in sys.path:
            sys.path.append(str(beside))
    try:
        read = Config.fromfile(str(file), import_custom_modules=True).to_dict()
        config = Config({key: value for key, value in read.items() if not key.startswith("_")})
        config.merge_from_dict(dict(overrides or {}))
        return plain(config.to_dict())
    except RecursionError as error:
        raise PxframeError(f"config {file}: --cfg-options takes no dicts inside a list; write a config file") from error
    except Exception as error:  # a config is a Python file: anything may go wrong in it
        cause = " ".join(str(error).split()) or "no reason given"
        raise PxframeError(f"config {file}: {type(error).__name__}: {cause}") from error


def checked(raw: Mapping[str, Any], file: str | Path) -> JobConfig:
    """The values of a config as a job takes them.

    Args:
        raw: by the keys of :data:`KEYS`.
        file: where they come from, for messages and for the default work dir.

    Raises:
        PxframeError: a key or value that no job takes.
    """
    with within(f"config {file}"):
        return _checked(raw, Path(file))


def _checked(raw: Mapping[str, Any], file: Path) -> JobConfig:
    check_keys(raw, KEYS, "")
    for key in ("backbone", "prune", "tasks"):
        if not isinstance(raw.get(key), Mapping):
            raise PxframeError(f"needs a dict {key!r} ({KEYS[key]})")
    known = {f.name: f for f in fields(Prune)}
    check_keys(raw["prune"], known, "prune: ")
    for name, task in raw["tasks"].items():
        if not (isinstance(name, str) and _TASK_NAME.fullmatch(name)) or name in RESERVED or name.startswith("seed-"):
            raise PxframeError(
                f"tasks: {name!r} cannot be the name of a task: a folder is named after it. Use letters, digits, '_', "
                f"'-', '.', '+' and '=', at most 80, and neither {', '.join(RESERVED)} nor seed-N"
            )
        if not isinstance(task, Mapping):
            raise PxframeError(f"tasks: {name!r} must be a dict(type=TASK, ...), got {task!r}")
        if "type" not in task:  # most often made by an override of a task that is not there
            others = [other for other in raw["tasks"] if other != name]
            raise PxframeError(f"tasks: {name!r} has no 'type'{near(name, others)}")
    seeds = listed(raw.get("seed", 0))
    if not seeds or not all(type(s) is int and 0 <= s < 2**32 for s in seeds) or len(set(seeds)) < len(seeds):
        raise PxframeError(f"'seed' must be a whole number from 0 to 2^32 - 1, or a list of different ones: {seeds!r}")
    boards = raw.get("vis_backends") or []
    if not (isinstance(boards, (list, tuple)) and all(isinstance(board, Mapping) for board in boards)):
        raise PxframeError(f"'vis_backends' must be a list of dict(type=...), got {boards!r}")
    pretrain = raw.get("pretrain")
    if not (pretrain is None or isinstance(pretrain, Mapping)):
        raise PxframeError(f"'pretrain' must be a dict(type=TASK, ...), got {pretrain!r}")
    return JobConfig(
        file=str(file),
        backbone=raw["backbone"],
        tasks=raw["tasks"],
        prune=Prune(**raw["prune"]),
        seeds=tuple(seeds),
        work_dir=checked_folder(raw.get("work_dir") or Path("work_dirs") / file.stem),
        pretrain=dict(pretrain) if pretrain else None,
        transfer=one_of("job", "transfer", raw.get("transfer"), TRANSFERS),
        slim=one_of("job", "slim", raw.get("slim", False), (True, False)),
        keep_checkpoints=one_of("job", "keep_checkpoints", raw.get("keep_checkpoints", False), (True, False)),
        vis_backends=list(boards),
    )


def chosen_tasks(config: JobConfig, names: Iterable[str] | None) -> list[str]:
    """The tasks to run, of those in the config; None: all.

    Raises:
        PxframeError: a name that the config does not have.
    """
    chosen = list(config.tasks) if names is None else list(names)
    for name in chosen:
        if name not in config.tasks:
            raise PxframeError(f"there is no task {name!r} in the config{near(name, config.tasks)}")
    return chosen


def check_keys(config: Mapping[str, Any], known: Mapping[str, Any], where: str) -> None:
    """Refuse keys that nothing reads, naming near matches."""
    for key in config:
        if key not in known:
            raise PxframeError(f"{where}there is no key {key!r}{near(key, known)}")


def listed(value: Any) -> list[Any]:
    """A list or tuple as a list, and anything else as a list of one."""
    return list(value) if isinstance(value, (list, tuple)) else [value]


def plain(value: Any) -> Any:
    """mmengine's config types as plain dicts and lists."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(plain(item) for item in value)
    return value
