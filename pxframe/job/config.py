"""Reading a config file of a job, and refusing what does not belong in one."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mmengine.config import Config

from pxframe.base.errors import PxframeError, near

#: Top-level keys of a job, and what they mean.
KEYS = {
    "seed": "of every random draw; default 0. A list repeats the job, each time from the start, and gives means",
    "work_dir": "folder for everything the job writes; default work_dirs/<config name>",
    "backbone": "dict(type=PROVIDER, **options): the network to prune and transfer",
    "pretrain": "a task config: trains the backbone, with its own classifier, before it is pruned; optional",
    "prune": "how tickets are made; the keys are those of PRUNE_KEYS",
    "tasks": "name -> task config: where the tickets are transferred to",
    "transfer": "'mask': the ticket's mask on the dense pre-training's weights; 'mask+weights': the mask and its own "
    "weights, trained on 'pretrain'; default: its own where its method gives it some, else the dense ones",
    "vis_backends": "mmengine's, that curves go to: [dict(type='TensorboardVisBackend')]; '{run}' names the run",
}
PRUNE_KEYS = {
    "scorer": "dict(type=SCORER, **options), 'rounds' among them, or a list of such: tickets of each",
    "sparsity": "share of weights (or channels) to prune, or a list: a ticket for each",
    "schedule": "'exponential' or 'linear'",
    "scope": "'global', one threshold, or 'layer', one in each",
    "distribution": "of the density over layers with scope='layer': 'uniform' or 'erk'",
    "granularity": "'weight', 'channel', an N:M pattern ('2:4'), or a dict with options",
    "whole": "True: prune each task's whole model, head included, on its own images; default: the backbone alone, once",
    "exclude": "names or patterns of weights to leave alone; the classifier's are, unless this is given",
    "data": "the config of a task whose training images are scored on; default: that of 'pretrain'",
    "samples": "how many images, drawn evenly over the classes where there are any; default 100",
    "batch_size": "of scoring; default: all samples at once",
    "mode": "'train' or 'eval', in which scorers take the loss: batch norm by the batch's statistics or by its own. "
    "Default: 'eval' after 'pretrain', else 'train'. Dropout is off in both",
}


def load_config(path: str | Path, overrides: Mapping[str, Any] | None = None) -> Config:
    """Read a job's config; ``overrides`` (``{"tasks.digits.epochs": 3}``) go on top.

    A path that is not there is also looked for among the configs that come with the package: ``configs/quickstart.py``
    and ``quickstart`` both name the one of the quick start. Names that begin with ``_`` are the file's own.

    Raises:
        PxframeError: no such file, an error in it, or a key that is not one of :data:`KEYS`.
    """
    file = find_config(path)
    try:
        read = Config.fromfile(str(file), import_custom_modules=False).to_dict()
        config = Config({key: value for key, value in read.items() if not key.startswith("_")})
        config.merge_from_dict(dict(overrides or {}))
    except Exception as error:  # a config is a Python file: anything may go wrong in it
        cause = " ".join(str(error).split()) or "no reason given"
        raise PxframeError(f"config {file}: {type(error).__name__}: {cause}") from error
    check_keys(config, KEYS, f"config {file}")
    for key in ("backbone", "prune", "tasks"):
        if not isinstance(config.get(key), Mapping):
            raise PxframeError(f"config {file}: needs a dict {key!r} ({KEYS[key]})")
    check_keys(config.prune, PRUNE_KEYS, f"config {file}: prune")
    for name, task in config.tasks.items():
        if not isinstance(task, Mapping):
            raise PxframeError(f"config {file}: tasks: {name!r} must be a dict(type=TASK, ...), got {task!r}")
        if name in ("pretrain", "tickets"):
            raise PxframeError(f"config {file}: tasks: {name!r} is the name of a folder the job writes; choose another")
    config.setdefault("work_dir", str(Path("work_dirs") / file.stem))
    config.setdefault("seed", 0)
    seeds = config.seed if isinstance(config.seed, (list, tuple)) else [config.seed]
    if not seeds or not all(type(s) is int and 0 <= s < 2**32 for s in seeds) or len(set(seeds)) < len(seeds):
        raise PxframeError(f"config {file}: 'seed' must be a whole number or a list of different ones: {config.seed!r}")
    return config


def find_config(path: str | Path) -> Path:
    """The config file that ``path`` names, in the file system or among those that come with the package."""
    path = Path(path)
    if path.is_file():
        return path
    package = find_spec("pxframe_configs")
    roots = list(package.submodule_search_locations or ()) if package else []
    inside = Path(*path.parts[1:]) if path.parts[:1] == ("configs",) else path
    for root in roots:
        for candidate in (Path(root) / inside, (Path(root) / inside).with_suffix(".py")):
            if candidate.is_file():
                return candidate
    files = [f.relative_to(root) for root in roots for f in Path(root).rglob("*.py")]
    shipped = [str(f) for f in files if not any(part.startswith("_") for part in f.parts)]
    raise PxframeError(f"there is no config {str(path)!r}{near(str(path), shipped)}")


def check_keys(config: Mapping[str, Any], known: Mapping[str, Any], where: str) -> None:
    """Refuse keys that nothing reads, naming near matches."""
    for key in config:
        if key not in known:
            raise PxframeError(f"{where}: there is no key {key!r}{near(key, known)}")
