"""Where a job is read from and where it writes to. Nothing here imports torch: a wrong path is told at once."""

from __future__ import annotations

import os
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pxframe.base.errors import PxframeError, near
from pxframe.files.paths import expand

#: What mmengine reads a config from.
_SUFFIXES = (".py", ".json", ".yaml", ".yml")


def find_config(path: str | Path) -> Path:
    """The config file that ``path`` names, in the file system or among those that come with the package.

    Raises:
        PxframeError: there is no such file, or it is no config.
    """
    path = Path(path)
    if path.is_file():
        if path.suffix not in _SUFFIXES:
            raise PxframeError(f"{str(path)!r} is no config: a config is a Python file, its name ends with .py")
        return path
    package = find_spec("pxframe_configs")
    roots = list(package.submodule_search_locations or ()) if package else []
    inside = Path(*path.parts[1:]) if path.parts[:1] == ("configs",) else path
    for root in roots:
        for candidate in (Path(root) / inside, (Path(root) / inside).with_suffix(".py")):
            if candidate.is_file():
                return candidate
    if path.is_dir():
        raise PxframeError(f"{str(path)!r} is a folder; name a config file in it")
    files = [f.relative_to(root) for root in roots for f in Path(root).rglob("*.py")]
    shipped = [str(f) for f in files if not any(part.startswith("_") for part in f.parts)]
    raise PxframeError(f"there is no config {str(path)!r}{near(str(path), shipped)}")


def checked_folder(path: Any) -> Path:
    """``path`` as a folder to write into, ``~`` and ``$VARIABLE`` expanded."""
    if not isinstance(path, (str, os.PathLike)):
        raise PxframeError(f"'work_dir' must be a path, got {path!r}")
    text = os.fspath(path)
    if "\0" in text or any(len(part.encode()) > 200 for part in Path(text).parts):
        raise PxframeError(f"'work_dir' is no name a folder can have: {text[:60]!r}...")
    return expand(text)


def work_folder(path: str | Path) -> Path:
    """The work folder of a job, ``~`` and ``$VARIABLE`` expanded.

    Raises:
        PxframeError: there is none.
    """
    root = expand(str(path))
    if not root.is_dir():
        raise PxframeError(f"there is no folder {str(path)!r}; name a job's work folder, e.g. work_dirs/quickstart")
    return root


def check_folder(root: Path, *, resume: bool) -> None:
    """Refuse a work folder that a job cannot take: by trying to write there, and leaving nothing.

    Raises:
        PxframeError: the folder holds something and ``resume`` was not asked for; or it cannot be written.
    """
    try:
        if not resume and root.is_dir() and any(not path.name.startswith(".") for path in root.iterdir()):
            raise PxframeError(
                f"{root} is not empty: add --resume to use what is finished there and run what is new, or choose "
                f"another --work-dir"
            )
        there = next(place for place in (root, *root.absolute().parents) if os.path.lexists(place))
        os.rmdir(tempfile.mkdtemp(prefix=".", suffix=".part", dir=there))
    except OSError as error:
        raise PxframeError(f"cannot write in {root}: {error.strerror}; choose another --work-dir") from error
