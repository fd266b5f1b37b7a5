"""Signs the checkpoints of a run with a digest of their content, and checks it when it reads them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from pxframe.base.errors import PxframeError
from pxframe.ticket.file import fingerprint

#: Entries that the digest covers.
_COVERED = ("state_dict", "optimizer", "param_schedulers", "message_hub")


def sign(checkpoint: dict[str, Any], made_by: str) -> None:
    """Write into ``checkpoint["meta"]`` a digest of its content, and ``made_by``, the digest of the run's recipe."""
    checkpoint["meta"]["made_by"] = made_by
    checkpoint["meta"]["sha256"] = _digest(checkpoint)


def read_signed(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint that :func:`sign` signed. Code in the file is not run.

    Raises:
        PxframeError: the file is damaged, or was written by another program.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        signed = checkpoint["meta"]["sha256"]
    except Exception as error:  # a damaged file can make torch.load raise any exception
        raise PxframeError(f"it is damaged, or no checkpoint of such a run ({type(error).__name__})") from error
    if _digest(checkpoint) != signed:
        raise PxframeError("it is damaged: its content does not match its digest")
    return checkpoint


def _digest(checkpoint: dict[str, Any]) -> str:
    entries = {key: checkpoint.get(key) for key in _COVERED}
    meta = {key: value for key, value in checkpoint["meta"].items() if key not in ("sha256", "dataset_meta")}
    leaves = pytree.tree_flatten_with_path([entries, meta])[0]
    tensors = {pytree.keystr(path): leaf for path, leaf in leaves if isinstance(leaf, Tensor)}
    values = sorted((pytree.keystr(path), repr(leaf)) for path, leaf in leaves if not isinstance(leaf, Tensor))
    return hashlib.sha256((fingerprint(tensors) + repr(values)).encode()).hexdigest()
