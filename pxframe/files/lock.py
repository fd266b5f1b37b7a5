"""One owner of a work folder at a time."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from pxframe.base.errors import PxframeError
from pxframe.files.writing import write_json

LOCK = ".owner.lock"
OWNER = ".owner.json"


@contextmanager
def owned(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Own ``folder``, which is made if it is missing, until the block ends.

    The kernel releases the lock of a process that ends in whatever way, so a killed owner leaves nothing to clean up.

    Raises:
        PxframeError: another process (or this one, elsewhere) owns the folder, or it cannot be written.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise PxframeError(
            f"{str(folder)!r} is in use by {_owner(folder)}; wait until it ends, stop it, or use another folder"
        ) from error
    except (OSError, ValueError, NotImplementedError) as error:
        reason = getattr(error, "strerror", None) or error
        raise PxframeError(f"cannot lock {str(folder)!r}: {reason}") from error
    try:
        started = time.strftime("%Y-%m-%d %H:%M:%S %z")
        write_json(folder / OWNER, {"pid": os.getpid(), "host": socket.gethostname(), "started": started})
        yield
    finally:
        (folder / OWNER).unlink(missing_ok=True)
        lock.release()


@contextmanager
def waiting(file: str | os.PathLike[str], say: Callable[[str], None]) -> Iterator[None]:
    """Hold a lock on ``file`` until the block ends; while another process holds it, wait.

    The kernel releases the lock of a process that ends in whatever way.

    Args:
        say: told in one line if there is a wait.

    Raises:
        PxframeError: the file cannot be written or locked.
    """
    lock = FileLock(file)
    try:
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            say(f"another process holds {os.fspath(file)!r}; waiting until it ends")
            lock.acquire()
    except (OSError, ValueError, NotImplementedError) as error:
        reason = getattr(error, "strerror", None) or error
        raise PxframeError(f"cannot lock {os.fspath(file)!r}: {reason}") from error
    try:
        yield
    finally:
        lock.release()


def _owner(folder: Path) -> str:
    """The words for the owner of ``folder``: it may not have written who it is yet."""
    try:
        owner = json.loads((folder / OWNER).read_text(encoding="utf-8"))
        return f"process {owner['pid']} on {owner['host']}, started {owner['started']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
