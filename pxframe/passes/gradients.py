"""First and second derivatives of the loss of whole batches, by the weights; of single samples: ``samples``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pxframe.base import ranks
from pxframe.base.errors import PxframeError, within
from pxframe.passes.batches import Batches, dealt
from pxframe.running.inputs import divisible
from pxframe.running.threads import repeatable

if TYPE_CHECKING:
    from pxframe.network.net import Net


def gradients(
    net: Net, batches: Iterable[tuple[Any, Any]], weights: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """See :meth:`pxframe.network.net.Net.gradients`."""
    base = net.masked() if weights is None else weights
    leaves = {n: w.detach().requires_grad_() for n, w in base.items()}
    total = {n: torch.zeros_like(w) for n, w in leaves.items()}
    turns, shared = dealt(batches)
    with torch.enable_grad():
        for number, batch, count in turns:
            # A scorer that hands over single batches numbers them itself.
            where = within(f"batch {number}") if isinstance(batches, Batches) else nullcontext()
            found = _of_batch(net, batch, leaves, where) if batch is not None else [None] * len(leaves)
            for name, gradient in zip(leaves, found, strict=True):
                # Batch after batch, as one process adds them up: the sum has the same bits.
                own = torch.zeros_like(total[name]) if shared and gradient is None else gradient
                for part in ranks.gathered(own)[:count] if shared and own is not None else [own]:
                    if part is not None:
                        total[name] += part
    return total


def _of_batch(
    net: Net, batch: tuple[Any, Any], leaves: Mapping[str, Tensor], where: AbstractContextManager[None]
) -> Sequence[Tensor | None]:
    inputs, targets = batch
    with where:
        loss = net.loss(net(inputs, leaves), targets)
    if loss.ndim:
        raise PxframeError(f"the loss gave a tensor of shape {tuple(loss.shape)}; it must be a scalar")
    with repeatable(divisible(inputs) or 1):
        return torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)


def hessian_product(
    net: Net, batch: tuple[Any, Any], weights: Mapping[str, Tensor], vector: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """See :meth:`pxframe.network.net.Net.hessian_product`."""
    inputs, targets = batch
    leaves = {n: w.detach().requires_grad_() for n, w in weights.items()}
    ends = list(leaves.values())
    with torch.enable_grad():
        loss = net.loss(net(inputs, leaves), targets)
        first = torch.autograd.grad(loss, ends, create_graph=True, materialize_grads=True)
        bent = {n: g for n, g in zip(leaves, first, strict=True) if g.requires_grad}
        along = [vector[n] for n in bent]
        found = torch.autograd.grad(list(bent.values()), ends, along, materialize_grads=True)
    return dict(zip(leaves, found, strict=True))
