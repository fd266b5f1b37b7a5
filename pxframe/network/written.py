"""Whether tensors that a scorer may only read have been written into."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class Written:
    """Remembers the versions of tensors; torch raises that of a tensor with each operation in place.

    Args:
        tensors: by the name that a message is to have.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._versions = [(name, tensor, tensor._version) for name, tensor in tensors.items()]

    def names(self) -> list[str]:
        """Of the tensors that were written into since."""
        return [name for name, tensor, version in self._versions if tensor._version != version]


def changed(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> list[str]:
    """Names of the ``tensors`` whose values are not those in ``own``; NaN is equal to NaN.

    Writing through ``.data`` or NumPy leaves no other sign. Waits for the device.
    """
    return [name for name, tensor in tensors.items() if not _same(tensor, own[name])]


def _same(held: Tensor, own: Tensor) -> bool:
    return torch.equal(held, own) or (held.is_floating_point() and torch.allclose(held, own, 0, 0, equal_nan=True))
