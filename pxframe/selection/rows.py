"""Rows of fused weights by name: ``"blocks.0.attn.qkv.weight[q]"`` means the rows that make the queries."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor

from pxframe.base.errors import PxframeError, near
from pxframe.engine.fused import Parts, find_fused
from pxframe.network.net import Net

_ROWS = re.compile(r"(.+)\[([qkv])\]")


def is_rows(pattern: str) -> bool:
    """Whether an ``exclude`` pattern means rows of weights, and not whole ones."""
    return _ROWS.fullmatch(pattern) is not None


def whole(exclude: Iterable[str]) -> list[str]:
    """Those of the ``exclude`` patterns that mean whole weights."""
    return [pattern for pattern in exclude if not is_rows(pattern)]


def fused_rows(net: Net, example: Any, exclude: Iterable[str]) -> dict[str, Parts]:
    """The rows of fused weights by what they make; empty without data, or without a graph to read.

    Raises:
        PxframeError: ``exclude`` means rows, and there are no data, or no graph, that would show which.
    """
    asked = [pattern for pattern in exclude if is_rows(pattern)]
    if example is None:
        if asked:
            raise PxframeError(f"{asked[0]!r}: only data show which rows these are; pass batches")
        return {}
    with suppress(*() if asked else (PxframeError,)):
        found = find_fused(net.trace(net.one(example)))
        return {name: found[name] for name in net.masks if name in found}
    return {}


def held_rows(masks: Mapping[str, Tensor], fused: Mapping[str, Parts], exclude: Iterable[str]) -> dict[str, Tensor]:
    """What ``exclude`` says of rows: by weight, a bool mask of its shape, true in the rows that are not to be pruned.

    Args:
        fused: the rows of the weights in ``masks``, as :func:`fused_rows` gives them.

    Raises:
        PxframeError: a pattern matches no fused weight.
    """
    held: dict[str, Tensor] = {}
    for pattern, match in ((pattern, _ROWS.fullmatch(pattern)) for pattern in exclude):
        if match is None:
            continue
        wanted, part = match.groups()
        found = [name for name, parts in fused.items() if part in parts and fnmatchcase(name, wanted)]
        if not found:
            known = [f"{name}[{part}]" for name, parts in fused.items() for part in parts]
            raise PxframeError(f"no fused weight has rows {pattern!r}{near(pattern, known)}")
        for name in found:
            mask = held.setdefault(name, torch.zeros_like(masks[name]))
            for start, stop in fused[name][part]:
                mask[start:stop] = True
    return held
