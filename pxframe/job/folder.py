"""The folder of a job: claimed by one process at a time, and never mixed with anything else by accident."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pxframe.base.errors import PxframeError
from pxframe.base.files import write_json
from pxframe.base.lock import owned
from pxframe.job.job import Job
from pxframe.job.made import canonical

_RECORD = "job.json"


@contextmanager
def claimed(job: Job) -> Iterator[None]:
    """Own the job's folder inside the block: a new one, or with ``resume`` one that has work in it.

    ``job.json`` there says which config was run last; no stage reads it.

    Raises:
        PxframeError: the folder is not empty and ``resume`` was not asked for; or another process works in it.
    """
    root = job.root
    if not job.resume and root.is_dir() and any(not path.name.startswith(".") for path in root.iterdir()):
        raise PxframeError(
            f"{root} is not empty: add --resume to use what is finished there and run what is new, or choose another "
            f"--work-dir"
        )
    with owned(root):
        config = {key: value for key, value in vars(job.config).items() if key != "prune"}
        write_json(root / _RECORD, canonical({**config, "prune": vars(job.config.prune), "device": job.device}))
        yield
