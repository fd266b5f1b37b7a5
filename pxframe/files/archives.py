"""Zip archives read as folders: each is unpacked once, into a cache."""

from __future__ import annotations

import hashlib
import re
import shutil
import zipfile
from pathlib import Path, PurePosixPath

from pxframe.base.errors import PxframeError
from pxframe.files.scratch import new_folder

#: An archive that unpacks to more than this many bytes, and to more than this many times its own size, is refused.
#: Archives of images grow by a few per cent, of text some ten times; deflate reaches 1000 times with zeros alone.
LARGE, GROWTH = 2**30, 100


def unpacked(archive: Path, cache: Path) -> Path:
    """The folder in ``cache`` with the contents of ``archive``, keyed by its path, size and time of change.

    Raises:
        PxframeError: the archive is damaged or unsafe, or the disk has no room for its contents.
    """
    try:
        status = archive.stat()
        key = hashlib.sha256(f"{archive.resolve()}:{status.st_size}:{status.st_mtime_ns}".encode()).hexdigest()[:16]
        target = cache / f"{archive.stem}-{key}"
        if target.is_dir():
            return target
        with zipfile.ZipFile(archive) as members:
            _check(members, archive, status.st_size)
            with new_folder(target) as part:
                _check_room(members, archive, part)
                members.extractall(part)
    except PxframeError:
        raise
    except Exception as error:  # the readers raise whatever the bytes lead them to
        raise PxframeError(f"cannot unpack {archive} into {cache}: {error}") from error
    return target


def _check(members: zipfile.ZipFile, archive: Path, size: int) -> None:
    for member in members.namelist():
        parts = PurePosixPath(member.replace("\\", "/"))
        if parts.is_absolute() or ".." in parts.parts or re.match(r"[A-Za-z]:", member):
            raise PxframeError(f"{archive} is unsafe: its member {member!r} would be written elsewhere")
        if re.search(r"[\x00-\x1f\x7f]", member):
            raise PxframeError(f"{archive} is unsafe: the name of its member {member!r} holds control characters")
    total = _total(members)
    if total > max(LARGE, GROWTH * size):
        raise PxframeError(
            f"{archive} is unsafe: its {size} bytes unpack to {total}; where you trust it, unpack it beside the archive"
        )


def _check_room(members: zipfile.ZipFile, archive: Path, folder: Path) -> None:
    total, free = _total(members), shutil.disk_usage(folder).free
    if total > free:
        raise PxframeError(
            f"cannot unpack {archive}: it needs {total} bytes and {folder.parent} has {free}; "
            f"set PXFRAME_CACHE to a folder on a larger disk"
        )


def _total(members: zipfile.ZipFile) -> int:
    """Bytes after unpacking. The archive states them, and reading stops there even where it holds more."""
    return sum(member.file_size for member in members.infolist())
