"""Rows of fused weights by name: ``"blocks.0.attn.qkv.weight[q]"`` means the rows that make the queries."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor

from pxframe.base.errors import PxframeError, near
from pxframe.engine.fused import Parts, find_fused
from pxframe.scoring.net import Net

_ROWS = re.compile(r"(.+)\[([qkv])\]")


def is_rows(pattern: str) -> bool:
    """Whether an ``exclude`` pattern means rows of weights, and not whole ones."""
    return _ROWS.fullmatch(pattern) is not None


def whole(exclude: Iterable[str]) -> list[str]:
    """Those of the ``exclude`` patterns that mean whole weights."""
    return [pattern for pattern in exclude if not is_rows(pattern)]


def fused_rows(net: Net, example: Any) -> dict[str, Parts]:
    """The rows of fused weights by what they make; empty without data, or without a graph to read."""
    if example is None:
        return {}
    with suppress(PxframeError):
        blocks = find_fused(net.trace(net.one(example)))
        return {name: blocks[name] for name in net.masks if name in blocks}
    return {}


def held_rows(net: Net, example: Any, exclude: Iterable[str]) -> dict[str, Tensor]:
    """What ``exclude`` says of rows: by weight, a bool mask of its shape, true in the rows that are not to be pruned.

    Raises:
        PxframeError: a pattern matches no fused weight, or there are no data that would show which rows it means.
    """
    wanted = [(pattern, *match.groups()) for pattern in exclude if (match := _ROWS.fullmatch(pattern))]
    if not wanted:
        return {}
    if example is None:
        raise PxframeError(f"{wanted[0][0]!r}: only data show which rows these are; pass batches")
    blocks = find_fused(net.trace(net.one(example)))  # a model without a graph says so here
    held: dict[str, Tensor] = {}
    for pattern, name, block in wanted:
        found = [n for n, of in blocks.items() if n in net.masks and block in of and fnmatchcase(n, name)]
        if not found:
            known = [f"{n}[{b}]" for n, of in blocks.items() if n in net.masks for b in of]
            raise PxframeError(f"no fused weight has rows {pattern!r}{near(pattern, known)}")
        for n in found:
            mask = held.setdefault(n, torch.zeros_like(net.masks[n]))
            for start, stop in blocks[n][block]:
                mask[start:stop] = True
    return held
