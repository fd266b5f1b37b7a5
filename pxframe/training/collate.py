"""Making a batch of items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch.utils.data import default_collate

from pxframe.base.errors import PxframeError


def stacked(items: Sequence[Mapping[str, Any]]) -> Any:
    """One batch of items like those of :class:`pxframe.Images`: ``inputs`` of one size, and all else, stacked.

    Raises:
        PxframeError: the images differ in size.
    """
    sizes = {tuple(item["inputs"].shape): None for item in items}  # in order, each once
    if len(sizes) > 1:
        one, other = ("x".join(map(str, size[1:])) for size in list(sizes)[:2])
        raise PxframeError(
            f"images of one batch differ in size ({one} and {other}, height x width); add Resize or a crop to the "
            f"'transform' of both data sets"
        )
    return default_collate(list(items))
