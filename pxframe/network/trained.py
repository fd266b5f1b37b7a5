"""A copy of a model, trained at given masks, for methods that learn from training."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from pxframe.base.errors import PxframeError, some
from pxframe.running.undisturbed import copied, seeded
from pxframe.ticket.ticket import Ticket

#: ``train(model, ticket, start=0, stop=None)`` trains ``model`` in place with what the ticket prunes kept at zero, from
#: optimizer step ``start`` up to step ``stop`` of its schedule (None: to its end), the same way every time.
Train = Callable[..., None]


def trained(
    model: nn.Module,
    train: Train,
    masks: Mapping[str, Tensor],
    state: Mapping[str, Tensor] | None,
    start: int,
    stop: int | None,
    seed: int,
) -> dict[str, Tensor]:
    """See :meth:`pxframe.network.net.Net.trained`; ``model`` stays as it is.

    Args:
        seed: of all that training draws.
    """
    model = copied(model)
    device = next(model.parameters()).device
    model.load_state_dict({**model.state_dict(), **(state or {})})
    ticket = Ticket(masks)
    ticket.apply(model)
    with seeded(seed, device):
        train(model, ticket, start=start, stop=stop)
    found = {n: t.detach().to(device, copy=True) for n, t in model.state_dict().items()}
    gone = [n for n in masks if n not in found]
    if gone:
        raise PxframeError(f"the model that 'train' leaves has no {some(gone)} any more; exclude it")
    # One question to the device for all layers; NaN differs from zero too.
    grown = torch.stack([((found[n] != 0) & ~mask).any() for n, mask in masks.items()]).tolist()
    moved = [n for n, has_grown in zip(masks, grown, strict=True) if has_grown]
    if moved:
        raise PxframeError(
            f"'train' let pruned weights of {some(moved)} grow back; call ticket.guard(optimizer, model)"
        )
    return found
