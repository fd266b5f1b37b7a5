"""The weights of a given mask that come closest to what the dense layer gives: masked conjugate gradients."""

from __future__ import annotations

import torch
from torch import Tensor


class LeastSquares:
    """min over V, zero where the mask is, of ||W X - V Z||^2 + damping * mean(diag H) * ||W - V||^2, with H = Z Z^T.

    Hassibi and Stork, "Second order derivatives for network pruning: Optimal Brain Surgeon", NeurIPS 1992, in the
    layer-wise form of Frantar and Alistarh, "Optimal Brain Compression", NeurIPS 2022, for a mask that is given. Each
    row of V is a problem of its own.

    X are the layer's inputs in the dense network and Z those in the pruned one, ``[groups, columns, positions]``. Sums
    over them are kept in float64; the products of each part that is taken in are in the inputs' own dtype, or float32.

    Args:
        dense: W, ``[groups, rows, columns]``.
    """

    def __init__(self, dense: Tensor) -> None:
        self._dense = dense.double()
        groups, _, columns = dense.shape
        self._own = self._dense.new_zeros(groups, columns, columns)  # Z Z^T
        self._cross: Tensor | None = None  # X Z^T where X is not Z

    def add(self, pruned: Tensor, dense: Tensor | None = None) -> None:
        """Take in Z, and X where that is something else."""
        dtype = torch.promote_types(pruned.dtype, torch.float32)
        z = pruned.to(dtype)
        self._own += z @ z.mT
        if dense is not None:
            added = (dense.to(dtype) @ z.mT).double()
            self._cross = added if self._cross is None else self._cross + added

    def solve(self, start: Tensor, mask: Tensor, damping: float, steps: int, tolerance: float = 1e-9) -> Tensor:
        """V, by conjugate gradients from ``start`` on; rows that they would make worse stay as they start.

        Args:
            start: ``[groups, rows, columns]``, zero where the mask is.
            mask: bool, of the same shape; true where a weight is kept.
            damping: relative to the mean of H's diagonal. Inputs that are always zero leave their weights as they are.
            steps: at most.
            tolerance: of the residual, relative to that of V = 0.
        """
        ridge = damping * self._own.diagonal(dim1=-2, dim2=-1).mean(-1)[:, None, None]
        hessian = self._own + ridge * torch.eye(self._own.shape[-1], dtype=torch.float64, device=mask.device)
        scale = hessian.diagonal(dim1=-2, dim2=-1).unsqueeze(-2)  # Jacobi's preconditioner
        inverse = torch.where(scale > 0, 1 / scale, 0.0)
        target = self._dense @ self._seen + ridge * self._dense
        target = target * mask
        values = start.double() * mask
        residual = (target - values @ hessian) * mask
        step = direction = residual * inverse
        enough = tolerance * target.norm()
        for _ in range(steps):
            if residual.norm() <= enough:
                break
            bent = (direction @ hessian) * mask
            steepness = (residual * step).sum(-1, keepdim=True)
            length = _ratio(steepness, (direction * bent).sum(-1, keepdim=True))
            values = values + length * direction
            residual = residual - length * bent
            step = residual * inverse
            direction = step + _ratio((residual * step).sum(-1, keepdim=True), steepness) * direction
        before, after = self.error(start, mask), self.error(values, mask)
        return torch.where(after <= before, values, start.double() * mask).to(start.dtype)

    def error(self, values: Tensor, mask: Tensor) -> Tensor:
        """||W X - V Z||^2 less ||W X||^2, for each row: ``[groups, rows, 1]``."""
        values = values.double() * mask
        return ((values @ self._own - 2 * (self._dense @ self._seen)) * values).sum(-1, keepdim=True)

    @property
    def _seen(self) -> Tensor:
        """X Z^T."""
        return self._own if self._cross is None else self._cross


def _ratio(above: Tensor, below: Tensor) -> Tensor:
    """Their quotient, and 0 for rows that have come to an end."""
    return torch.where(below > 0, above / below.clamp(min=torch.finfo(below.dtype).tiny), 0.0)
