"""The folder of a job: claimed by one process at a time, and never mixed with anything else by accident."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import torch

from pxframe.base import ranks
from pxframe.base.errors import PxframeError
from pxframe.files.lock import owned
from pxframe.files.writing import read_json, write_json
from pxframe.job.job import Job
from pxframe.job.made import canonical, differences
from pxframe.job.places import check_folder

_RECORD = "job.json"
#: Which tickets a command makes: two commands of one job may differ in these, and each ticket's row tells its own.
_WHICH = ("scorer", "sparsity", "controls")


def earlier_threads(job: Job) -> int | None:
    """How many threads the work in the job's folder was begun with; None where there is none."""

    def read() -> int | None:
        with suppress(PxframeError):
            threads = read_json(job.root / _RECORD).get("threads")
            return threads if job.resume and type(threads) is int and threads > 0 else None
        return None

    return ranks.by_first(read)


@contextmanager
def claimed(job: Job) -> Iterator[None]:
    """Own the job's folder inside the block: a new one, or with ``resume`` one that has work in it.

    ``job.json`` there says which config was run last, which of its tasks, and the names of its tickets (null where one
    was given, and they are not known before it is read). No stage reads it; the report does.

    Of several ranks, rank 0 owns it for all.

    Raises:
        PxframeError: the folder is not empty and ``resume`` was not asked for; it cannot be written; or another process
            works in it.
    """
    with ExitStack() as stack:
        ranks.by_first(lambda: _claim(job, stack))
        yield


def _claim(job: Job, stack: ExitStack) -> None:
    root = job.root
    check_folder(root, resume=job.resume)
    stack.enter_context(owned(root))
    config = {key: value for key, value in vars(job.config).items() if key != "prune"}
    about = {"prune": vars(job.config.prune), "device": job.device, "threads": torch.get_num_threads()}
    parts = {"chosen": list(job.tasks), "variants": list(job.prunings) if job.given is None else None}
    write_json(root / _RECORD, canonical({**config, **about, **parts}))


def settings_of(job: Job) -> dict[str, Any]:
    """What each ticket of the job and the results of its chosen tasks depend on, as ``job.json`` has it."""
    config = job.config
    prune = {key: value for key, value in vars(config.prune).items() if key not in _WHICH}
    tasks = {name: config.tasks[name] for name in job.tasks}
    about = {"backbone": config.backbone, "pretrain": config.pretrain, "transfer": config.transfer}
    found: dict[str, Any] = canonical({**about, "prune": prune, "tasks": tasks})
    return found


def changed_settings(earlier: Mapping[str, Any], record: Mapping[str, Any]) -> list[str]:
    """Where :func:`settings_of` an earlier command and a ``job.json`` differ, as ``"prune.samples was 6, now 12"``."""
    now = {
        key: {name: record[key].get(name) for name in value}
        if key in ("prune", "tasks") and isinstance(value, dict) and isinstance(record.get(key), dict)
        else record.get(key)
        for key, value in earlier.items()
    }
    return differences(dict(earlier), now)
