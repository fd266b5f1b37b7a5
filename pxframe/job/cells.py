"""What a task is trained from: all of the backbone's weights, a ticket, or a random ticket of the same size."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from pxframe.pruning.threshold import global_masks
from pxframe.ticket.ticket import Ticket


def variants(made: Mapping[str, Ticket], seed: int) -> dict[str, Ticket | None]:
    """Dense, every ticket, and a random ticket for each number of weights that one keeps; sparser ones later.

    Tickets are called ``METHOD-LEVEL``, and random ones ``random-LEVEL``; where another ticket has that name,
    ``random-like-METHOD-LEVEL``. A ticket that is alone is called ``ticket``, its random counterpart ``random``.
    """
    alone = len(made) == 1
    named = {"ticket": next(iter(made.values()))} if alone else dict(made)
    sizes = {t.kept for name, t in made.items() if name.startswith("random-")}
    for name, ticket in made.items():
        if ticket.kept not in sizes:
            sizes.add(ticket.kept)
            control = "random" if alone else f"random-{name.rpartition('-')[2]}"
            named[control if control not in named else f"random-like-{name}"] = random_ticket(ticket, seed)
    return {"dense": None, **{name: named[name] for name in sorted(named, key=lambda n: round(named[n].sparsity, 3))}}


def method_of(variant: str, ticket: Ticket | None) -> str:
    """What chose the variant's weights, by the name of :func:`variants` without the level."""
    if ticket is None:
        return "dense"
    return variant.rpartition("-")[0] or ticket.meta.get("scorer", "ticket")


def random_ticket(like: Ticket, seed: int) -> Ticket:
    """A ticket of the same weights and exactly the same number kept, chosen at random."""
    generator = torch.Generator().manual_seed(seed)
    scores = {name: torch.rand(mask.shape, generator=generator) for name, mask in like.masks.items()}
    every = {name: torch.ones_like(mask) for name, mask in like.masks.items()}
    return Ticket(global_masks(scores, every, like.kept), {"scorer": "random", "seed": seed})
