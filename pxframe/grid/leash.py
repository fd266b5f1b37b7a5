"""A command in a process group of its own, which ends when the process that started it ends, in whatever way.

A small process leads the group and starts the command. It reads a pipe that only the starter can write to, and nobody
ever does: when the starter closes it, or is killed, the kernel closes the pipe, and the leader ends its group.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

#: Seconds that a group has to end by itself (a launcher ends processes in groups of their own) before it is killed.
GRACE = 10.0


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code (128 + N where signal N ended it), and how many seconds it took."""

    code: int
    seconds: float


class Leashed:
    """A running command of Python; ``Leashed(["-m", "module", ...], env, log)`` starts it.

    Args:
        command: the arguments of the interpreter that this process runs in.
        env: its whole environment.
        log: its output is appended to this file.
    """

    def __init__(self, command: Sequence[str], env: Mapping[str, str], log: Path) -> None:
        self._begun = time.monotonic()
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, "ab") as out:
            self._leader = subprocess.Popen(
                [sys.executable, "-m", "pxframe.grid.leash", sys.executable, *command],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=dict(env),
                start_new_session=True,
            )

    def wait(self) -> Ended:
        """Wait until the command ends. If this is interrupted, the command is ended first."""
        try:
            while self._leader.poll() is None:  # a wait in the kernel would not see an interrupt that no signal brings
                time.sleep(0.05)
        finally:
            self.stop()
            self._leader.wait()
        code = self._leader.returncode
        return Ended(code if code >= 0 else 128 - code, time.monotonic() - self._begun)

    def stop(self) -> None:
        """Have the command ended; another thread may call it."""
        assert self._leader.stdin is not None
        self._leader.stdin.close()


def main(command: Sequence[str]) -> int:
    """Lead the group: run the command, and end the group when the pipe closes."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it is sent to the whole group, and the leader goes last
    threading.Thread(target=_end_with_the_pipe, daemon=True).start()
    code = process.wait()
    os.killpg(0, signal.SIGTERM)  # what the command may have left behind
    return code if code >= 0 else 128 - code


def _end_with_the_pipe() -> None:
    os.read(0, 1)  # not sys.stdin: the interpreter could not end while this thread waits inside of it
    os.killpg(0, signal.SIGTERM)
    time.sleep(GRACE)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
