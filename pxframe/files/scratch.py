"""Scratch files and folders: something is written beside its place and moved there when it is whole.

A scratch path is ``.NAME.XXXXXXXX.part`` beside NAME. Its owner holds a lock on it, which the kernel releases when the
owner ends in whatever way, so the next writer of NAME can tell what a killed process left from what is being written.
"""

from __future__ import annotations

import errno
import glob
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pxframe.base.errors import PxframeError

try:
    import fcntl
except ImportError:  # not a POSIX system: nothing is ever taken for left behind
    fcntl = None  # type: ignore[assignment]


#: Errors of a disk that takes no more, by number.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)
#: The same, in the words of libraries that write files without Python: safetensors and torch.save.
_FULL_WORDS = (*(f"os error {number})" for number in _FULL), "PytorchStreamWriter failed", "unexpected pos ")


@contextmanager
def scratch(path: Path, create: Callable[[Path], None]) -> Iterator[Path]:
    """Give a new scratch path for ``path``, made by ``create``; remove it after the block, if it is still there.

    Raises:
        PxframeError: it cannot be made, or the disk is full inside the block.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path)
        part, lock = _locked(path, create)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise cannot_write(path, error) from error
    try:
        yield part
    except Exception as error:
        if _is_full(error):
            raise cannot_write(path, error) from error
        raise
    finally:
        remove(part)
        if lock is not None:
            os.close(lock)


def cannot_write(path: Path, error: Exception) -> PxframeError:
    """The error to raise where ``path`` cannot be written because of ``error``."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error).splitlines()[0]
    return PxframeError(f"cannot write {str(path)!r}: {reason}")


def _is_full(error: Exception) -> bool:
    if isinstance(error, OSError):
        return error.errno in _FULL
    return not isinstance(error, PxframeError) and any(words in str(error) for words in _FULL_WORDS)


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Give an empty folder; when the block ends well it becomes ``target``, unless another process was first."""
    with scratch(target, Path.mkdir) as part:
        yield part
        try:
            part.rename(target)
        except OSError as error:
            if not target.is_dir():
                raise cannot_write(target, error) from error
        sync(target.parent)


def remove_leftovers(path: Path) -> None:
    """Remove the scratch files and folders of ``path`` that no living process owns."""
    for part in path.parent.glob(f".{glob.escape(path.name)}.????????.part"):
        with suppress(OSError):  # another process removes it at the same time, or may remove it and this one may not
            lock = _lock(part, wait=False)
            if lock is not None:
                remove(part)
                os.close(lock)


def remove(path: Path) -> None:
    """Remove a file or a folder with all that is in it, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Wait until the disk holds what was written to the file ``path``, or the names in the folder ``path``."""
    if os.name != "posix":  # other systems open no folder, and no file for reading only
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _locked(path: Path, create: Callable[[Path], None]) -> tuple[Path, int | None]:
    while True:
        part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
        create(part)
        try:
            lock = _lock(part, wait=True)
        except FileNotFoundError:
            continue
        if part.exists():
            return part, lock
        if lock is not None:  # another writer saw it before it was locked, and removed it
            os.close(lock)


def _lock(part: Path, *, wait: bool) -> int | None:
    """A descriptor that holds the lock of ``part``; None where it is another's, or the file system has no locks."""
    if fcntl is None:
        return None
    handle = os.open(part, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        os.close(handle)
        return None
    return handle
