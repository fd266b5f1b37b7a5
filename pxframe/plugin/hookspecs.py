"""The hooks of pxframe: this file is the manual for plug-in authors.

A plug-in is a module (or object) that an installed distribution names in its entry points::

    [options.entry_points]
    pxframe =
        squared = my_package.squared

and that implements any of the hooks below::

    import pxframe

    class Squared(pxframe.Scorer):
        name, needs = "squared", "labels"

        def score(self, net, batches):
            gradients = net.gradients(batches)
            return {n: (g * net.weights[n]) ** 2 for n, g in gradients.items()}

    @pxframe.hookimpl
    def pxframe_register(register):
        register.scorer(Squared)

A hook may take fewer arguments than its specification lists, never others. A plug-in that does not load, or does not
fit these hooks, is reported with its distribution, version and cause; all other plug-ins work. Name the entry point
after what it provides: an error about a missing name then finds the cause. Where several processes do one job, the
hooks that tell what was done are called in the first of them alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from torch import Tensor

    from pxframe.plugin.host import Registrar
    from pxframe.ticket.ticket import Ticket

#: The version of these hooks. It grows by one when a hook changes its meaning. A plug-in may state the version it was
#: written for in a module attribute ``PXFRAME_HOOKS``; a plug-in of another version is refused, and the reason says so.
HOOK_VERSION = 1

hookspec = pluggy.HookspecMarker("pxframe")
hookimpl = pluggy.HookimplMarker("pxframe")


# --- set-up --------------------------------------------------------------------------------------


@hookspec
def pxframe_register(register: Registrar) -> None:
    """Register scorers, backbone providers and tasks.

    ``register.scorer(cls)``, ``register.backbone(cls)`` and ``register.task(cls)`` each take a class, not an instance:
    a subclass of :class:`pxframe.Scorer`, :class:`pxframe.Backbone` or :class:`pxframe.Task`. It is registered under
    its ``name``, which becomes part of file names: letters, digits, ``_``, ``-``, ``.`` and ``+``.

    ``register.scorer(cls, default=True)`` marks the scorer that is used where the user names none. One scorer of all
    installed plug-ins may be the default. ``register.scorer(cls, control=True)`` marks a control: a scorer that every
    job adds to its comparison, beside each ticket, such as ``random`` and ``dense``.

    A scorer may state how it is usually run in a class attribute ``defaults``, a dictionary with any of the keys
    ``sparsity``, ``rounds``, ``granularity``, ``scope``, ``distribution`` and ``schedule``. What the user asks for goes
    before it.

    The hook is called once, when plug-ins are loaded. Import heavy libraries inside the methods of your classes, not at
    the top of the module: ``pxframe list`` loads every plug-in.
    """


# --- pruning: observers ----------------------------------------------------------------------------


@hookspec
def pxframe_round_done(
    scorer: str, round: int, rounds: int, density: float, scores: dict[str, Tensor], masks: dict[str, Tensor]
) -> None:
    """A round of pruning has been scored and masked.

    Args:
        ``scorer``: its name.
        ``round``: counts from 1 to ``rounds``.
        ``rounds``: the number of rounds.
        ``density``: the share of prunable weights (or channels) that is now kept.
        ``scores``: of this round, by weight name: float tensors, one score a weight or one an output channel.
        ``masks``: of this round, by weight name: bool tensors of the weights' shapes, true where a weight is kept.

    Do not change the tensors. The hook runs between two rounds, so the time it takes is added to the pruning.
    """


@hookspec
def pxframe_ticket_made(ticket: Ticket) -> None:
    """``pxframe.prune`` is about to return ``ticket``."""


# --- transfer: observers ---------------------------------------------------------------------------


@hookspec
def pxframe_task_done(task: str, variant: str, result: dict[str, Any]) -> None:
    """A task was trained and evaluated.

    Args:
        ``task``: its name in the config.
        ``variant``: the name of the weights it was trained with, as in ``results.json``: ``METHOD-LEVEL`` for a ticket,
            with the sparsity in per cent (``px-90.00``, ``random-90.00``), or ``dense``.
        ``result``: the row of ``results.json``.
    """
