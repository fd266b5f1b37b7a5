"""Where data lies: paths with variables in them, and archives that are read as folders."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from pxframe.base.errors import PxframeError, some, within
from pxframe.files.archives import unpacked

CACHE_VARIABLE = "PXFRAME_CACHE"
#: Unicode categories of control characters and of bytes that are no text (lone surrogates).
_CONTROL = ("Cc", "Cs")


def locate(path: str | os.PathLike[str]) -> Path:
    """The existing file or folder that ``path`` names, with ``~`` and ``$VARIABLE`` expanded.

    A path through a folder ``X`` that does not exist is looked for in the archive ``X.zip``. The archive is unpacked
    once, into ``$PXFRAME_CACHE`` (default ``~/.cache/pxframe``), and the path of that copy is returned.

    Raises:
        PxframeError: the path does not exist, a variable in it is not set, or the archive is damaged or unsafe.
    """
    wanted = expand(path)
    if exists(wanted):
        return wanted
    for folder in (wanted, *wanted.parents):
        archive = folder.with_name(folder.name + ".zip") if folder.name else None
        if archive is None or not os.path.isfile(archive):  # unlike Path.is_file, false for a name that is too long
            continue
        copy = unpacked(archive, expand(os.environ.get(CACHE_VARIABLE, "~/.cache/pxframe")))
        found = copy / wanted.relative_to(folder)
        if found.exists():
            return found
        inside = some(sorted(p.name for p in copy.iterdir()))
        raise PxframeError(f"{archive} has no {wanted.relative_to(folder)} inside; at its top are: {inside}")
    there = next((p for p in wanted.parents if exists(p)), Path("."))
    raise PxframeError(f"there is no {wanted}; of it, {there} exists: put the data there or correct the path")


def expand(path: str | os.PathLike[str]) -> Path:
    """``path`` with ``~`` and ``$VARIABLE`` expanded, whether it exists or not.

    Raises:
        PxframeError: a variable is not set, or the path holds characters that no name should have.
    """
    given = os.fspath(path)
    text = os.path.expanduser(os.path.expandvars(given))
    unset = re.search(r"\$\{?(\w+)", text)
    if unset:
        raise PxframeError(f"{given}: the environment variable {unset[1]} is not set; set it, or write the path out")
    odd = sorted({c for c in text if unicodedata.category(c) in _CONTROL})
    if odd:
        raise PxframeError(
            f"{given!a}: a path must not hold control characters, this one holds {some(map(ascii, odd))}"
        )
    return Path(text)


def expand_all(config: Any, where: str = "") -> Any:
    """A copy of ``config`` with ``~`` and ``$VARIABLE`` expanded in every string inside its mappings and sequences.

    Strings that neither hold ``$NAME`` (or ``${NAME}``) nor begin with ``~`` stay as they are, and so do all keys.

    Args:
        where: what ``config`` is, for messages; keys are added to it.

    Raises:
        PxframeError: a variable is not set; the message names the key.
    """
    if isinstance(config, Mapping):
        return type(config)({k: expand_all(v, f"{where}[{k!r}]") for k, v in config.items()})  # type: ignore[call-arg]
    if type(config) in (list, tuple):
        return type(config)(expand_all(v, f"{where}[{i}]") for i, v in enumerate(config))
    if isinstance(config, str) and (config.startswith("~") or re.search(r"\$\{?[A-Za-z_]", config)):
        with within(where) if where else nullcontext():
            return str(expand(config))
    return config


def exists(path: Path) -> bool:
    """Whether there is a file or folder at ``path``.

    Raises:
        PxframeError: the system cannot tell: the name is too long, or a folder may not be entered.
    """
    try:
        return path.exists()
    except OSError as error:
        raise PxframeError(f"cannot look for {_shortened(str(path))}: {error.strerror}") from error


def _shortened(text: str) -> str:
    return text if len(text) <= 120 else f"{text[:80]}...{text[-30:]}"
