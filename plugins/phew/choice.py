"""Drawing from many weighted groups at once."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

#: Sums below this are treated as zero.
_TINY = torch.finfo(torch.float64).tiny


class _Groups:
    """Members in a row, group after group, drawn in proportion to their shares: one ascending table to search in."""

    def __init__(self, shares: Tensor, ends: Tensor) -> None:
        """No group is empty.

        Args:
            shares: float64 ``[members]``, adding up to 1 in each group; overwritten, as there may be many.
            ends: ``[groups]``, where each group's members end.
        """
        self._table = shares.cumsum_(0)
        self._high = self._table[ends - 1]
        self._low = torch.cat([torch.zeros(1, dtype=torch.float64), self._high[:-1]])

    def members(self, groups: Tensor, generator: Generator) -> Tensor:
        """A member's place in the row for each of ``groups``."""
        low, high = self._low[groups], self._high[groups]
        at = low + torch.rand(len(groups), dtype=torch.float64, generator=generator) * (high - low)
        # Rounding must lead neither past the group's end nor to a last member whose share is 0.
        at = torch.minimum(at, torch.nextafter(high, low))
        return torch.searchsorted(self._table, at, right=True)


class Rows:
    """Draws a column from rows of a matrix, with probability proportional to the entry.

    Attributes:
        totals: each row's sum, ``[rows]``; only rows where it is above 0 can be drawn from.
    """

    def __init__(self, weights: Tensor) -> None:
        """``weights``: non-negative, float64 ``[rows, columns]``, contiguous; overwritten."""
        rows, self._columns = weights.shape
        totals = weights.sum(1)
        self.totals = totals.where(totals > _TINY, 0.0)
        weights /= totals.clamp(min=_TINY)[:, None]
        self._groups = _Groups(weights.view(-1), torch.arange(1, rows + 1) * self._columns)

    def draw(self, rows: Tensor, generator: Generator) -> Tensor:
        """A column for each of ``rows``."""
        return self._groups.members(rows, generator) - rows * self._columns


class Links:
    """Draws a value for a key among those linked to it, with probability proportional to the link's weight.

    Attributes:
        live: the keys that have any weight, ascending; only they can be drawn for.
    """

    def __init__(self, keys: Tensor, values: Tensor, weights: Tensor) -> None:
        """All ``[links]``, in any order; ``weights`` non-negative."""
        order = keys.argsort(stable=True)
        self._values, weights = values[order], weights[order].double()
        self._keys, group = keys[order].unique_consecutive(return_inverse=True)
        totals = torch.zeros(len(self._keys), dtype=torch.float64).index_add_(0, group, weights)
        self.live = self._keys[totals > _TINY]
        self._groups = _Groups(weights / totals[group].clamp(min=_TINY), group.bincount().cumsum(0))

    def draw(self, keys: Tensor, generator: Generator) -> Tensor:
        """A value for each of ``keys``."""
        return self._values[self._groups.members(torch.searchsorted(self._keys, keys), generator)]
