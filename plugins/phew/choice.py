"""Random draws from many weighted groups at once."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

#: Sums below this are treated as zero.
_TINY = torch.finfo(torch.float64).tiny


class _Groups:
    """Draws members of groups, each with the probability of its share.

    All groups lie in one row, one after another. The running sum of their shares is one ascending table, so a binary
    search in it finds a member of any group.
    """

    def __init__(self, shares: Tensor, ends: Tensor) -> None:
        """Build the table. Every group must have at least one member.

        Args:
            shares: float64 ``[members]``. They add up to 1 in each group. The tensor is overwritten to save memory.
            ends: int64 ``[groups]``, the position behind the last member of each group.
        """
        self._table = shares.cumsum_(0)
        self._high = self._table[ends - 1]
        self._low = torch.cat([torch.zeros(1, dtype=torch.float64), self._high[:-1]])

    def members(self, groups: Tensor, generator: Generator) -> Tensor:
        """Draw one member for each entry of ``groups``; gives the members' positions in the row, int64 ``[draws]``."""
        low, high = self._low[groups], self._high[groups]
        at = low + torch.rand(len(groups), dtype=torch.float64, generator=generator) * (high - low)
        # Without this, rounding could give a position behind the group's end, or a last member whose share is 0.
        at = torch.minimum(at, torch.nextafter(high, low))
        return torch.searchsorted(self._table, at, right=True)


class Rows:
    """Draws columns from rows of a matrix. The probability of a column is proportional to the entry in its row.

    Attributes:
        totals: float64 ``[rows]``, the sum of each row. Draw only from rows whose sum is above 0.
    """

    def __init__(self, weights: Tensor) -> None:
        """Build the table.

        Args:
            weights: float64 ``[rows, columns]``, non-negative and contiguous. The tensor is overwritten.
        """
        rows, self._columns = weights.shape
        totals = weights.sum(1)
        self.totals = totals.where(totals > _TINY, 0.0)
        weights /= totals.clamp(min=_TINY)[:, None]
        self._groups = _Groups(weights.view(-1), torch.arange(1, rows + 1) * self._columns)

    def draw(self, rows: Tensor, generator: Generator) -> Tensor:
        """Draw one column for each entry of ``rows``; int64, of the shape of ``rows``."""
        return self._groups.members(rows, generator) - rows * self._columns


class Links:
    """Draws one of the values that are linked to a key. The probability is proportional to the weight of the link.

    Attributes:
        live: int64, the keys whose links have a total weight above 0, ascending. Draw only for these keys.
    """

    def __init__(self, keys: Tensor, values: Tensor, weights: Tensor) -> None:
        """Build the table of links, in any order.

        Args:
            keys: int64 ``[links]``.
            values: int64 ``[links]``.
            weights: ``[links]``, non-negative.
        """
        order = keys.argsort(stable=True)
        self._values, weights = values[order], weights[order].double()
        self._keys, group = keys[order].unique_consecutive(return_inverse=True)
        totals = torch.zeros(len(self._keys), dtype=torch.float64).index_add_(0, group, weights)
        self.live = self._keys[totals > _TINY]
        self._groups = _Groups(weights / totals[group].clamp(min=_TINY), group.bincount().cumsum(0))

    def draw(self, keys: Tensor, generator: Generator) -> Tensor:
        """Draw one value for each entry of ``keys``; int64, of the shape of ``keys``."""
        return self._values[self._groups.members(torch.searchsorted(self._keys, keys), generator)]
