"""Folders of data that a function writes once, and that later runs with the same config find."""

from __future__ import annotations

import json
import pkgutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pxframe.base.errors import PxframeError, blaming
from pxframe.base.options import check_options
from pxframe.files.paths import exists, expand
from pxframe.files.scratch import new_folder
from pxframe.files.writing import write_json

#: File in a prepared folder that holds the config that wrote it.
_STAMP = ".prepared.json"


def prepare_once(config: Mapping[str, Any], where: str) -> Path:
    """Let the function that a config names write data into a folder, once.

    The function is called as ``function(root=scratch, **options)`` with an empty scratch folder. When the function is
    done, the scratch folder is renamed to ``root``. A folder that the same config wrote before is left as it is.

    Args:
        config: ``dict(type="package.module.function", root=FOLDER, **options)``.
        where: the beginning of messages.

    Returns:
        ``root``, with ``~`` and ``$VARIABLE`` expanded.

    Raises:
        PxframeError: there is no such function or option, the function fails, or ``root`` holds other files.
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
    if exists(root):
        _check_stamp(root, made_by, where)
        return root
    with new_folder(root) as scratch:
        with blaming(f"{where} {name!r}"):
            function(root=scratch, **options)
        write_json(scratch / _STAMP, made_by)
    _check_stamp(root, made_by, where)  # another process may have been first
    return root


def _check_stamp(root: Path, made_by: Any, where: str) -> None:
    """Refuse a folder that another config, or another program, wrote."""
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
