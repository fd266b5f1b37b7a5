"""Writing so that a file is there whole or not at all."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pxframe.base.errors import PxframeError


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Give a scratch path beside ``path``; when the block ends well, it takes the place of ``path``."""
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, scratch = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    except OSError as error:
        raise PxframeError(f"cannot write {path}: {error.strerror}") from error
    os.close(handle)
    try:
        yield Path(scratch)
        os.chmod(scratch, 0o666 & ~_umask())
        os.replace(scratch, path)
    finally:
        Path(scratch).unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_json(path: str | Path, value: Any) -> None:
    with replacing(path) as scratch:
        scratch.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
