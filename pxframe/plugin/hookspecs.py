"""The hooks of pxframe: this file is the manual for plug-in authors.

A plug-in is a module (or object) that an installed distribution names in its entry points::

    [options.entry_points]
    pxframe =
        fisher = my_package.fisher

and that implements any of the hooks below::

    import pxframe

    class Fisher(pxframe.Scorer):
        name, needs = "fisher", "labels"

        def score(self, net, batches):
            gradients = net.gradients(batches)
            return {n: (g * net.weights[n]) ** 2 for n, g in gradients.items()}

    @pxframe.hookimpl
    def pxframe_register(register):
        register.scorer(Fisher)

A hook may take fewer arguments than its specification lists, never others. A plug-in that does not
load, or does not fit these hooks, is reported with its distribution, version and cause; the rest works.
Name the entry point after what it provides: an error about a missing name then finds its cause.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from torch import Tensor

    from pxframe.plugin.host import Registrar
    from pxframe.ticket.ticket import Ticket

#: Raised by one whenever a hook changes its meaning. A plug-in may state the version it was written
#: for as a module attribute ``PXFRAME_HOOKS``; another value is refused with that reason.
HOOK_VERSION = 1

hookspec = pluggy.HookspecMarker("pxframe")
hookimpl = pluggy.HookimplMarker("pxframe")


# --- set-up --------------------------------------------------------------------------------------


@hookspec
def pxframe_register(register: Registrar) -> None:
    """Register scorers, backbone providers and tasks.

    ``register.scorer(cls)``, ``register.backbone(cls)`` and ``register.task(cls)`` each take a subclass of
    :class:`pxframe.Scorer`, :class:`pxframe.Backbone` or :class:`pxframe.Task`, under its ``name``.
    Called once, when plug-ins are loaded. Import heavy libraries inside your classes' methods, not
    at the top of the module: ``pxframe list`` loads every plug-in.
    """


# --- pruning: observers ----------------------------------------------------------------------------


@hookspec
def pxframe_round_done(
    scorer: str, round: int, rounds: int, density: float, scores: dict[str, Tensor], masks: dict[str, Tensor]
) -> None:
    """A round of pruning has been scored and masked.

    ``scorer`` is its name; ``round`` counts from 1 to ``rounds``; ``density`` is the share of prunable weights (or
    channels) now kept; ``scores`` (float; one a weight, or one an output channel) and ``masks`` (bool, of the weights'
    shapes, true is kept) are the round's, by weight name. Read only.
    """


@hookspec
def pxframe_ticket_made(ticket: Ticket) -> None:
    """``pxframe.prune`` is about to return ``ticket``."""


# --- transfer: observers ---------------------------------------------------------------------------


@hookspec
def pxframe_task_done(task: str, variant: str, result: dict[str, Any]) -> None:
    """A task was trained and evaluated.

    ``task`` is its name in the config, ``variant`` ``"dense"``, ``"ticket"`` or ``"random"`` (with the
    ticket's name behind a slash where there are several), ``result`` a row of ``results.json``.
    """
