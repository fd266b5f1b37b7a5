"""Writing files whole or not at all, reading them back, and moving them out of the way without loss."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pxframe.base.errors import PxframeError
from pxframe.files.scratch import cannot_write, scratch, sync

SET_ASIDE = "set-aside"


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a scratch file beside ``path``. When the block ends well, the file takes the place of ``path``.

    By then the disk holds it: after a power failure ``path`` is the old file or the new one.

    Raises:
        PxframeError: the folder cannot be written, or the disk is full. ``path`` is then as it was.
    """
    path = Path(path)
    with scratch(path, _touch) as part:
        yield part
        sync(part)
        try:
            os.replace(part, path)
        except OSError as error:
            raise cannot_write(path, error) from error
        sync(path.parent)


def _touch(path: Path) -> None:
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write ``value`` as JSON, keys sorted."""
    text = json.dumps(value, indent=2, sort_keys=True) + "\n"
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The JSON object in the file ``path``.

    Raises:
        PxframeError: the file is missing, empty, cut short or damaged, or holds something other than an object.
    """
    name = repr(os.fspath(path))
    try:
        text = Path(path).read_bytes().decode("utf-8")
    except FileNotFoundError as error:
        raise PxframeError(f"there is no file {name}") from error
    except UnicodeDecodeError as error:
        raise PxframeError(f"{name} is damaged: it is not text; restore or remove it") from error
    except (OSError, ValueError) as error:
        raise PxframeError(f"cannot read {name}: {getattr(error, 'strerror', None) or error}") from error
    if not text.strip("\0 \t\r\n"):
        raise PxframeError(f"{name} is damaged: it is empty; restore or remove it")
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise PxframeError(f"{name} is damaged: line {error.lineno}: {error.msg}; restore or remove it") from error
    except RecursionError as error:
        raise PxframeError(f"{name} is damaged: it is nested too deeply; restore or remove it") from error
    if not isinstance(value, dict):
        raise PxframeError(
            f"{name} is damaged: it holds a {type(value).__name__}, not a JSON object; restore or remove it"
        )
    return value


def set_aside(path: str | os.PathLike[str], root: str | os.PathLike[str]) -> Path:
    """Move a file or folder under ``root`` to ``root/set-aside``, under the same relative path, and return its place.

    Nothing is overwritten: where the place is taken, ``.1``, ``.2`` and so on is added to the name.

    Raises:
        PxframeError: ``path`` does not exist, does not lie under ``root``, or cannot be moved.
    """
    path, root = Path(os.path.abspath(path)), Path(os.path.abspath(root))
    if not os.path.lexists(path):
        raise PxframeError(f"cannot set {str(path)!r} aside: there is no such file or folder")
    aside = root / SET_ASIDE
    if root not in path.parents or path == aside or aside in path.parents:
        raise PxframeError(f"cannot set {str(path)!r} aside: it must lie in {str(root)!r} and outside {SET_ASIDE!r}")
    wanted = place = aside / path.relative_to(root)
    number = 0
    while os.path.lexists(place):
        number += 1
        place = wanted.with_name(f"{wanted.name}.{number}")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        os.rename(path, place)
        for folder in (place.parent, path.parent):
            sync(folder)
    except OSError as error:
        raise PxframeError(f"cannot move {str(path)!r} to {str(place)!r}: {error.strerror}") from error
    return place
