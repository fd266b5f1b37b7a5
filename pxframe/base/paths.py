"""Where data lies: paths with variables in them, archives read as folders, and folders written once."""

from __future__ import annotations

import json
import os
import pkgutil
import re
import unicodedata
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from pxframe.base.archives import unpacked
from pxframe.base.errors import PxframeError, blaming, some, within
from pxframe.base.files import write_json
from pxframe.base.options import check_options
from pxframe.base.scratch import new_folder

CACHE_VARIABLE = "PXFRAME_CACHE"
_STAMP = ".prepared.json"
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
    if _exists(wanted):
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
    there = next((p for p in wanted.parents if _exists(p)), Path("."))
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


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:  # a name that is too long, a folder that may not be entered
        raise PxframeError(f"cannot look for {_shortened(str(path))}: {error.strerror}") from error


def _shortened(text: str) -> str:
    return text if len(text) <= 120 else f"{text[:80]}...{text[-30:]}"


def prepare_once(config: Mapping[str, Any], where: str) -> Path:
    """Let ``dict(type="package.module.function", root=FOLDER, **options)`` write the data in ``root``, once.

    The function is called as ``function(root=part, **options)`` with an empty folder, which takes the name
    ``root`` when the function is done. A folder that the same config wrote before is left as it is.

    Raises:
        PxframeError: no such function or option, the function fails, or ``root`` holds something else.
    """
    options = dict(config)
    name = options.pop("type", None)
    function = _function(name, where)
    check_options(function, options, f"{where} {name!r}")
    if "root" not in options:
        raise PxframeError(f"{where} needs the option 'root', the folder to write")
    root = expand(options.pop("root"))
    try:
        made_by = json.loads(json.dumps({"type": name, **options}))
    except (TypeError, ValueError) as error:
        raise PxframeError(f"{where}: its options must be plain values: {error}") from error
    if _exists(root):
        _check_stamp(root, made_by, where)
        return root
    with new_folder(root) as part:
        with blaming(f"{where} {name!r}"):
            function(root=part, **options)
        write_json(part / _STAMP, made_by)
    _check_stamp(root, made_by, where)  # another process may have been first
    return root


def _check_stamp(root: Path, made_by: Any, where: str) -> None:
    if _read_stamp(root) != made_by:
        raise PxframeError(
            f"{where}: {root} is there already and was not written by this config; remove it or change 'root'"
        )


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
