"""One prune: the model and the data are checked, rounds are run, and the ticket is told how it was made."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

from torch import nn

from pxframe.base import ranks
from pxframe.base.errors import PxframeError, blaming, some
from pxframe.network.net import Net
from pxframe.network.trained import Train
from pxframe.passes.batches import Batches
from pxframe.pruning.arguments import device_of, example_of, full_masks
from pxframe.pruning.plan import Plan
from pxframe.pruning.provenance import costs_of, provenance
from pxframe.pruning.rounds import Known, Rounds
from pxframe.refits.table import Refit
from pxframe.running.calls import Loss
from pxframe.running.undisturbed import derived_seed, seeded
from pxframe.scoring.precision import full_precision
from pxframe.scoring.prunable import left_dense, prunable
from pxframe.scoring.scorer import Scorer
from pxframe.selection.checks import check_outputs_first
from pxframe.selection.granularity import Channel
from pxframe.selection.joined import JoinedChannels, join_channels
from pxframe.selection.rows import fused_rows, held_rows, whole
from pxframe.ticket.ticket import Ticket

_log = logging.getLogger(__name__)


@dataclass
class Run:
    """What a prune works with, whatever its plan: the arguments of :func:`pxframe.prune` of these names."""

    model: nn.Module
    data: Batches
    method: Scorer
    loss: Loss | None
    train: Train | None
    seed: int
    known: Known | None

    def aimed(self, plan: Plan, allow_collapse: bool) -> Ticket:
        """The ticket that comes nearest to the plan's target."""
        assert plan.target is not None
        example = example_of(self.method, self.data, self.loss)
        if example is None:
            raise PxframeError(f"{plan.target.kind} is counted on an input: pass batches")
        self.known = {} if self.known is None else self.known  # scored once, where the method can be
        trial = plan if plan.refit.when == "between" else replace(plan, refit=Refit())

        def prune_at(sparsity: float) -> Ticket:
            return self._made(replace(trial, sparsity=sparsity), allow_collapse=True)

        from pxframe.pruning.aim import reach  # what it needs takes a quarter of a second to import

        agreed = ranks.broadcast_object if self.data.shared else float
        found = reach(plan.target, self.model, example, prune_at, agreed, allow_collapse)
        ticket = self.made(replace(plan, sparsity=found.sparsity), allow_collapse)
        ticket.meta["reached"] = found.share
        return ticket

    def made(self, plan: Plan, allow_collapse: bool) -> Ticket:
        """The ticket at the plan's sparsity; what is left of nothing, or of almost nothing, is told."""
        ticket = self._made(plan, allow_collapse)
        _warn(self.method, ticket)
        return ticket

    def _made(self, plan: Plan, allow_collapse: bool) -> Ticket:
        model, data, method, loss, seed = self.model, self.data, self.method, self.loss, self.seed
        device = device_of(model)
        with full_precision(device, self.train) as train, seeded(derived_seed(seed, "pruning"), device) as generator:
            example = example_of(method, data, loss)
            if plan.refit.reads and example is None:
                raise PxframeError(f"refit {plan.refit.name!r} reads inputs: pass batches")
            excluded = whole(plan.exclude)
            masks = full_masks(model, prunable(model, example, excluded))
            if isinstance(plan.granularity, Channel) and plan.granularity.groups is not None:
                plan = replace(plan, granularity=join_channels(plan.granularity, model, example, masks))
            granularity = plan.granularity
            fitting = granularity.fitting(masks)
            given = Net(model, {name: masks[name] for name in fitting}, loss, generator, train)
            given.pattern = granularity.pattern
            given.ties = granularity.ties if isinstance(granularity, JoinedChannels) else {}
            check_outputs_first(plan.outputs_first, model, given, example)
            with blaming("exclude"):
                fused = fused_rows(given, example, plan.exclude)
                given.held = held_rows(given.masks, fused, plan.exclude)
                held = plan.held(given.held)
            with blaming(f"refit {plan.refit.name!r}"):
                plan.refit.check(given, data)
            costs = costs_of(given, example, required=granularity.compute_aware)
            rounds = Rounds(method, plan, data, example, held, costs, seed, self.known, allow_collapse)
            net = rounds.run(given)
        ticket = Ticket({name: mask.cpu() for name, mask in net.masks.items()}, start=rounds.start)
        ticket.meta = {
            **({"fused_rows": fused} if fused else {}),
            **provenance(method, plan, given, example),
            "sparsity": ticket.sparsity,
            "seed": seed,
            "left_dense": left_dense(model, fitting, excluded),
            "macs": costs,
            **({"collapsed": rounds.collapsed} if rounds.collapsed else {}),
        }
        ticket.meta["emptied"] = ticket.emptied
        return ticket


def _warn(method: Scorer, ticket: Ticket) -> None:
    """Tell what is left of nothing, or of almost nothing, and what could not be pruned."""
    for text, names in {
        "nothing is left of %s": ticket.emptied,
        "almost nothing is left of %s": [f"{name} ({left} kept)" for name, left in ticket.nearly_emptied.items()],
        "these weights stay dense: %s": ticket.meta["left_dense"],
    }.items():
        if names:
            _log.warning(f"%s: {text}", method.name, some(names, most=8))
