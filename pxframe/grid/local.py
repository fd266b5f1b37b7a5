"""The engine of one machine: as many processes at a time as were asked for."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from pxframe.grid.environment import inherited
from pxframe.grid.leash import Ended, Leashed


class Local:
    """Runs commands here, ``jobs`` at a time."""

    queues = False

    def __init__(self, jobs: int) -> None:
        self.width = jobs
        self._pool = ThreadPoolExecutor(jobs)
        self._guard = threading.Lock()
        self._running: set[Leashed] = set()
        self._stopped = False

    def submit(self, command: Sequence[str], env: Mapping[str, str], log: Path, gpus: float) -> Future[Ended]:
        """Start a command of Python as soon as a place is free; the GPUs of this machine are shared by all."""
        return self._pool.submit(self._run, command, {**inherited(os.environ), **env}, log)

    def stop(self) -> None:
        """End all commands, and wait until they have ended."""
        with self._guard:
            self._stopped = True
            for one in self._running:
                one.stop()
        self._pool.shutdown(cancel_futures=True)

    def _run(self, command: Sequence[str], env: Mapping[str, str], log: Path) -> Ended:
        with self._guard:
            if self._stopped:
                return Ended(128 + 15, 0.0)
            one = Leashed(command, env, log)
            self._running.add(one)
        try:
            return one.wait()
        finally:
            with self._guard:
                self._running.discard(one)
