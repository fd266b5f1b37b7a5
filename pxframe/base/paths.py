"""Where data lies: paths with variables in them, archives read as folders, and folders written once."""

from __future__ import annotations

import hashlib
import json
import os
import pkgutil
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from pxframe.base.errors import PxframeError, some
from pxframe.base.files import write_json
from pxframe.base.options import check_options

CACHE_VARIABLE = "PXFRAME_CACHE"
_STAMP = ".prepared.json"


def locate(path: str | os.PathLike[str]) -> Path:
    """The file or folder that ``path`` names; ``~`` and ``$VARIABLE`` are expanded.

    A path through ``X/`` is also looked for in ``X.zip`` where there is no folder ``X``: the archive is unpacked
    once, into ``$PXFRAME_CACHE`` (default ``~/.cache/pxframe``), and the path inside that copy is given.

    Raises:
        PxframeError: it is not there, a variable in it is not set, or the archive is damaged or unsafe.
    """
    wanted = expand(path)
    if wanted.exists():
        return wanted
    for folder in (wanted, *wanted.parents):
        archive = folder.with_name(folder.name + ".zip") if folder.name else None
        if archive is None or not archive.is_file():
            continue
        found = _unpacked(archive) / wanted.relative_to(folder)
        if found.exists():
            return found
        inside = some(sorted(p.name for p in _unpacked(archive).iterdir()))
        raise PxframeError(f"{archive} has no {wanted.relative_to(folder)} inside; at its top are: {inside}")
    there = next((p for p in wanted.parents if p.exists()), Path("."))
    raise PxframeError(f"there is no {wanted}; of it, {there} exists: put the data there or correct the path")


def expand(path: str | os.PathLike[str]) -> Path:
    """``path`` with ``~`` and ``$VARIABLE`` expanded, existing or not."""
    text = os.path.expanduser(os.path.expandvars(os.fspath(path)))
    unset = re.search(r"\$\{?(\w+)", text)
    if unset:
        raise PxframeError(
            f"{os.fspath(path)}: the environment variable {unset[1]} is not set; set it to the folder of the data"
        )
    return Path(text)


def prepare_once(config: Mapping[str, Any], where: str) -> Path:
    """Let ``dict(type="package.module.function", root=FOLDER, **options)`` write the data in ``root``, once.

    The function is called as ``function(root=scratch, **options)`` with an empty folder, which takes the name
    ``root`` when it is complete. A folder that the same config wrote before is left as it is.

    Raises:
        PxframeError: no such function or option, or ``root`` holds something else.
    """
    options = dict(config)
    name = options.pop("type", None)
    function = _function(name, where)
    check_options(function, options, f"{where} {name!r}")
    if "root" not in options:
        raise PxframeError(f"{where} needs the option 'root', the folder to write")
    root = expand(options.pop("root"))
    made_by = json.loads(json.dumps({"type": name, **options}))
    if root.exists():
        if _read_stamp(root) == made_by:
            return root
        raise PxframeError(
            f"{where}: {root} is there already and was not written by this config; remove it or change 'root'"
        )
    with _new_folder(root) as scratch:
        function(root=scratch, **options)
        write_json(scratch / _STAMP, made_by)
    return root


def _function(name: Any, where: str) -> Any:
    try:
        function = pkgutil.resolve_name(name)
    except Exception as error:  # importing the module may fail in any way
        raise PxframeError(f"{where}: cannot import {name!r}: {error}".splitlines()[0]) from error
    if not callable(function):
        raise PxframeError(f"{where}: {name!r} is not a function")
    return function


def _read_stamp(root: Path) -> Any:
    try:
        return json.loads((root / _STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _unpacked(archive: Path) -> Path:
    """The folder with what ``archive`` holds, keyed by its name, size and time of change."""
    status = archive.stat()
    key = hashlib.sha256(f"{archive.resolve()}:{status.st_size}:{status.st_mtime_ns}".encode()).hexdigest()[:16]
    target = expand(os.environ.get(CACHE_VARIABLE, "~/.cache/pxframe")) / f"{archive.stem}-{key}"
    if target.is_dir():
        return target
    try:
        with zipfile.ZipFile(archive) as members:
            for member in members.namelist():
                parts = PurePosixPath(member.replace("\\", "/"))
                if parts.is_absolute() or ".." in parts.parts or re.match(r"[A-Za-z]:", member):
                    raise PxframeError(f"{archive} is unsafe: its member {member!r} would be written elsewhere")
            with _new_folder(target) as scratch:
                members.extractall(scratch)
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError) as error:
        raise PxframeError(f"cannot unpack {archive} into {target.parent}: {error}") from error
    return target


@contextmanager
def _new_folder(target: Path) -> Iterator[Path]:
    """Give an empty folder; when the block ends well it becomes ``target``, unless another process was first."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        outer = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent))
    except OSError as error:
        raise PxframeError(f"cannot write {target}: {error.strerror}") from error
    try:
        scratch = outer / target.name  # mkdtemp's own folder is closed to other users; this one follows the umask
        scratch.mkdir()
        yield scratch
        try:
            scratch.rename(target)
        except OSError:
            if not target.is_dir():
                raise
    finally:
        shutil.rmtree(outer, ignore_errors=True)
