"""The rounds of a prune: score the network masked so far, choose what is kept, look whether it still stands."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from pxframe.base import ranks
from pxframe.base.bars import Bar
from pxframe.base.errors import PxframeError, blaming
from pxframe.network.net import Net
from pxframe.passes.batches import Batches
from pxframe.plugin.host import host
from pxframe.pruning.plan import Held, Plan
from pxframe.scoring.scorer import Scorer
from pxframe.selection.checks import cause_of_zeros, check_scores, collapse, tied_at_zero

_log = logging.getLogger(__name__)
#: Scores by what they depend on; see :func:`pxframe.prune`.
Known = dict[str, dict[str, Tensor]]


@dataclass
class Rounds:
    """All rounds of one prune.

    Attributes:
        method: the scorer.
        plan: the settings.
        data: the batches.
        example: the first input, or None.
        held: entries that stay, and are not counted.
        costs: multiply-accumulates by weight, for channels; None where they are not known.
        seed: of the prune.
        known: scores of earlier prunes, or None.
        allow_collapse: whether a network that collapsed is told in ``collapsed``, and not by an error.
        start: what scorer and refits have put in the place of parameters and buffers, by name.
        collapsed: why the network's output no longer depends on its input; empty if it does.
    """

    method: Scorer
    plan: Plan
    data: Batches
    example: Any
    held: Held
    costs: Mapping[str, int] | None
    seed: int
    known: Known | None
    allow_collapse: bool
    start: dict[str, Tensor] = field(default_factory=dict)
    collapsed: str = ""
    _warned: bool = False

    def run(self, net: Net) -> Net:
        """The network after the last round, at its masks."""
        plan = self.plan
        with Bar(f"{self.method.name} to {plan.sparsity:.2%} sparsity", plan.rounds) as bar:
            for number in range(1, plan.rounds + 1):
                where = f"scorer {self.method.name!r}, round {number} of {plan.rounds}"
                self._mask(net, number, where)
                if plan.refits(number):
                    self.start |= self._changed(net, where)
                    net = net.at(self.start) if number < plan.rounds else net
                bar.advance(f"density {plan.density(number):.2%}")
        if plan.refit.when == "between":
            self.start = {}
        return net

    def _mask(self, net: Net, number: int, where: str) -> None:
        """One round: ``net`` gets new masks."""
        method, plan = self.method, self.plan
        net.density = plan.density(number)
        candidates = plan.candidates(net.masks, method.revives, self.held)
        keep = plan.kept(candidates, number, self.held)
        net.quotas = plan.quotas(net.masks, candidates, keep, self.held)
        scores = self._scores(net, number, where)
        if not self._warned and (number == 1 or plan.checks(number, method.revives)):
            last = plan.kept(candidates, plan.rounds, self.held)
            if ties := tied_at_zero(scores, candidates, last):
                _log.warning("%s: %s%s", where, ties, cause_of_zeros(net, self.example))
                self._warned = True
        masks = plan.masks(scores, net.masks, candidates, net.quotas or keep, self.held)
        if self.data.shared:
            ranks.broadcast_tensors(masks)
        net.masks = masks
        self._check(net, number, where)
        host().notify(
            "pxframe_round_done",
            scorer=method.name,
            round=number,
            rounds=plan.rounds,
            density=plan.density(number),
            scores=scores,
            masks=dict(net.masks),
        )

    def _scores(self, net: Net, number: int, where: str) -> dict[str, Tensor]:
        """One finite score an entry, computed or known."""
        method, plan = self.method, self.plan
        shared = None if self.known is None else _shared(method, plan, net, self.seed)
        scores = None if self.known is None or shared is None else self.known.get(shared)
        if scores is None:
            with blaming(where):
                found = _asked(method, plan)(net, self.data)
            net.check_untouched(where, exact=number == plan.rounds)
            with blaming(where):
                net.settle()
            of = "net.ties" if plan.granularity.scores_groups else "net.weights"
            scores = check_scores(found, plan.granularity.scored(net.masks), where, of)
            if self.known is not None and shared is not None and not net.density_was_read:
                self.known[shared] = scores
        scores = plan.granularity.join(scores)
        if plan.granularity.compute_aware:
            costs = plan.granularity.entry_costs(self.costs or {}, net.masks)
            return {name: score / costs[name] for name, score in scores.items()}
        return scores

    def _check(self, net: Net, number: int, where: str) -> None:
        """Look whether the output still depends on the input, in rounds in which that is worth its time."""
        if self.example is None or self.collapsed or not self.plan.checks(number, self.method.revives):
            return
        with blaming(where):
            found = collapse(net, self.example)
        if found and not self.allow_collapse:
            raise PxframeError(f"{where}: {found}, or pass allow_collapse=True")
        self.collapsed = found and f"{where}: {found}"

    def _changed(self, net: Net, where: str) -> dict[str, Tensor]:
        """What scorer and refit put in the place of the network's parameters and buffers after a round, by name."""
        with blaming(f"{where}, weights to start from"):
            start = dict(self.method.restart(net) or {})
        refit = self.plan.refit
        with blaming(f"refit {refit.name!r}"):
            refit.check_start(net, start)
            return start | refit.values(net, self.data, {**net.buffers, **net.parameters, **start}, net.held)


def _asked(method: Scorer, plan: Plan) -> Callable[[Net, Batches], dict[str, Tensor]]:
    """What of the scorer gives the scores that the plan's granularity is for."""
    if plan.granularity.scores_groups:
        return method.score_groups
    return method.score_channels if plan.granularity.scores_channels else method.score


def _shared(method: Scorer, plan: Plan, net: Net, seed: int) -> str | None:
    """What the scores of a method that scores once depend on, beside the model and the data; None for other methods."""
    if plan.rounds > 1 or type(method).restart is not Scorer.restart:
        return None
    entries = plan.granularity.scores_channels, plan.granularity.scores_groups, list(net.ties), list(net.masks)
    return repr((type(method), method.options(), entries, seed))
