"""The engine of a Ray cluster: core tasks alone, each of which waits for one process on its node.

All nodes see the work folder, the data and this installation under the same paths. Ray retries nothing; the grid does.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any

from pxframe.base.errors import PxframeError, blaming
from pxframe.grid.environment import inherited, sent
from pxframe.grid.leash import Ended, Leashed


class Rays:
    """Runs commands on a cluster, as many at a time as it has room for.

    Args:
        address: of the cluster; ``"auto"`` finds one that was started on this machine. None starts one here, for the
            time of the command.
        threads: CPUs that each command asks for.
        jobs: the most commands at a time; None: as many as there is room for.

    Raises:
        PxframeError: Ray is not installed, or there is no such cluster.
    """

    def __init__(self, address: str | None, threads: int, jobs: int | None = None) -> None:
        self._ray, self._threads, self._jobs = load_ray(), threads, jobs
        cpus = threads * jobs if jobs is not None and address is None else None
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a cluster that is started here reports to nobody
        handler = signal.getsignal(signal.SIGTERM)
        with blaming("--engine ray"):
            self._ray.init(address=address, num_cpus=cpus, log_to_driver=False, logging_level="error")
        signal.signal(signal.SIGTERM, handler)  # Ray's own would end the command without a word
        self._task = self._ray.remote(max_retries=0, num_cpus=threads)(run)
        self._tasks: dict[Future[Ended], Any] = {}

    @property
    def queues(self) -> bool:
        """Without a limit the cluster holds all that is ready, so that one that can grow does."""
        return self._jobs is None

    @property
    def width(self) -> int:
        """How many commands the cluster has CPUs for now; a cluster may grow."""
        room = int(self._ray.cluster_resources().get("CPU", 0) // self._threads)
        return max(1, room if self._jobs is None else min(room, self._jobs))

    def submit(self, command: Sequence[str], env: Mapping[str, str], log: Path, gpus: float) -> Future[Ended]:
        """Hand a command of Python to the cluster. The future fails where the process that waits for it is lost."""
        task = self._task.options(num_gpus=gpus)
        reference = task.remote(list(command), {**sent(os.environ), **env}, str(log.absolute()))
        future: Future[Ended] = reference.future()
        self._tasks[future] = reference
        future.add_done_callback(lambda done: self._tasks.pop(done, None))
        return future

    def stop(self) -> None:
        """End all commands, wait until they have ended, and leave the cluster."""
        tasks = dict(self._tasks)
        for reference in tasks.values():
            self._ray.cancel(reference)
        wait(tasks, timeout=30)
        self._ray.shutdown()


def load_ray() -> Any:
    """Ray, which only this engine needs.

    Raises:
        PxframeError: it is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise PxframeError("--engine ray needs Ray: pip install pxframe[ray]") from error
    return ray


def run(command: list[str], env: dict[str, str], log: str) -> Ended:
    """Run a command where Ray put this task: the node's own environment, with ``env`` on top."""
    return Leashed(command, {**inherited(os.environ), **env}, Path(log)).wait()
