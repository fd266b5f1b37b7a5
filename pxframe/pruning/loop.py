"""Scoring and pruning, as users call them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from pxframe.base import ranks
from pxframe.base.errors import blaming
from pxframe.network.net import Net
from pxframe.network.trained import Train
from pxframe.passes.batches import Batches
from pxframe.plugin.host import host
from pxframe.pruning.arguments import AnyScorer, build_scorer, device_of, example_of, full_masks
from pxframe.pruning.plan import Plan
from pxframe.pruning.rounds import Known
from pxframe.pruning.run import Run
from pxframe.refits.table import Refit
from pxframe.running.calls import Loss
from pxframe.running.undisturbed import derived_seed, seeded
from pxframe.running.wrappers import unwrapped
from pxframe.scoring.precision import full_precision
from pxframe.scoring.prunable import prunable
from pxframe.selection.checks import check_scores
from pxframe.selection.granularity import Granularity
from pxframe.selection.rows import whole
from pxframe.ticket.ticket import Ticket


def score(
    model: nn.Module,
    batches: Iterable[Any] | None = None,
    scorer: AnyScorer | None = None,
    masks: Mapping[str, Tensor] | None = None,
    loss: Loss | None = None,
    train: Train | None = None,
    seed: int = 0,
    **options: Any,
) -> dict[str, Tensor]:
    """Score every prunable weight once. The model and the caller's random states are left bit for bit as they were.

    Args:
        model: any module made of torch operations, on any device, in the mode its loss is to be taken in. Data-parallel
            and compiled modules are unwrapped, so names are those of the user's own module.
        batches: iterable of ``(input, target)`` pairs; None for scorers that need nothing. An input is a tensor, a
            tuple or list for ``model(*input)``, or a dict for ``model(**input)``; :mod:`pxframe.running.inputs`.
        scorer: a registered name, ``dict(type=NAME, **options)`` or a :class:`pxframe.Scorer`; default: the scorer that
            is registered as the default. The dict may hold settings of :func:`pxframe.prune` too; here only ``exclude``
            counts.
        masks: bool tensors by parameter name, true where kept. Only these parameters are scored. Default: all prunable
            parameters, with nothing pruned.
        loss: ``loss(output, target) -> scalar``; default: cross-entropy.
        train: ``train(model, ticket, start=0, stop=None)``, for scorers that need training. It trains ``model`` in
            place, keeps the weights that ``ticket`` prunes at zero (``ticket.guard``), runs from optimizer step
            ``start`` up to step ``stop`` of its schedule (None: to the end), and does the same every time.
        seed: of every random draw. Draws are independent of a network drawn under ``torch.manual_seed(seed)``.
        options: the scorer's own.

    Returns:
        a float tensor for each prunable weight, of its shape; weights with higher scores are kept.

    Raises:
        PxframeError: unknown scorer or option, missing data, masks that do not fit, or scores that are not finite.
    """
    method, settings = build_scorer(scorer, options, train, score)
    model = unwrapped(model)
    device = device_of(model)
    data = Batches(batches, device)
    where = f"scorer {method.name!r}"
    with full_precision(device, train) as train, seeded(derived_seed(seed, "pruning"), device) as generator:
        example, names = example_of(method, data, loss), list(masks or ())
        if masks is None:
            names = prunable(model, example, whole(Plan.of(method, settings).exclude))
        net = Net(model, full_masks(model, names, masks), loss, generator, train)
        with blaming(where):
            scores = method.score(net, data)
        net.check_untouched(where, exact=True)
        with blaming(where):
            net.settle()
        return check_scores(scores, net.weights, where)


def prune(
    model: nn.Module,
    batches: Iterable[Any] | None = None,
    scorer: AnyScorer | None = None,
    sparsity: float | None = None,
    rounds: int | None = None,
    schedule: str | None = None,
    scope: str | None = None,
    distribution: str | None = None,
    granularity: str | Mapping[str, Any] | Granularity | None = None,
    refit: str | Mapping[str, Any] | Refit | None = None,
    flops: float | None = None,
    params: float | None = None,
    latency: float | None = None,
    loss: Loss | None = None,
    train: Train | None = None,
    exclude: Iterable[str] | None = None,
    seed: int = 0,
    allow_collapse: bool = False,
    known: Known | None = None,
    shared: bool = False,
    **options: Any,
) -> Ticket:
    """Prune ``model`` before training and return the ticket; the model itself is left bit for bit as it was.

    In round t of T the scorer scores the network masked so far, and exactly ``round(density_t * entries)`` entries are
    kept. Entries are weights, or channels. What is pruned stays pruned, unless the scorer says it may return.

    Settings left at None are taken from the scorer's config (``dict(type=NAME, rounds=3, ...)``), else from the
    scorer's ``defaults``, else they are the defaults below. Where torch.distributed runs several ranks, every rank must
    call this; all of them get the ticket of rank 0.

    Args:
        model, batches, scorer, loss, train, seed, options: as for :func:`pxframe.score`.
        sparsity: share of prunable weights (or channels) to remove, in [0, 1); default: 0.982, and 1 - N/M for N:M.
        rounds: T; default: the scorer's own (100 for iterative methods, 1 for single-shot ones).
        schedule: ``"exponential"`` (the default) or ``"linear"``.
        scope: ``"global"`` (the default), one threshold over all layers, ``"layer"``, one in each, or ``"row"``,
            one for each output.
        distribution: of the density over layers, unless ``scope`` is global: ``"uniform"`` (the default) or ``"erk"``.
        granularity: ``"weight"`` (the default), ``"channel"``, an N:M pattern (``"2:4"``), or
            ``dict(type=..., **options)`` with the options of :mod:`pxframe.selection.granularity`.
        refit: what is done to the network after the last round, and kept in the ticket's ``start``: ``"keep"`` (the
            default) nothing, ``"bn"`` measures the statistics of batch norm anew on ``batches``, ``"obs"`` also gives
            each layer the least-squares weights for its mask, ``"rescale"`` and ``"reinit"`` make up for the inputs
            that are gone; or ``dict(type=..., **options)`` with the options of :mod:`pxframe.refits.table`. Of these,
            ``when="every"`` refits after each round, so that the next one scores the refitted network, and
            ``when="between"`` does so for the choice of the mask alone.
        flops, params, latency: in place of a sparsity, for channels: the share of the multiply-accumulates, the
            parameters, or the time of one sample (measured, on the model's device) that the network of
            :func:`pxframe.slim` is to have, in (0, 1). The sparsity is looked for; what was reached is in
            ``ticket.meta["reached"]``, and a warning tells where channels are too few to come within 2 % of the target.
            For scorers that do not train; needs ``batches`` and the extra ``pxframe[slim]``.
        exclude: parameter names or patterns (``"head.*"``) that are not pruned and not counted; default: none. Of a
            weight that makes queries, keys and values together, ``"*.qkv.weight[q]"`` names the rows of the queries
            (``[k]``, ``[v]``); a ticket's sparsity counts rows left out in this way as kept.
        allow_collapse: give the ticket of a network whose output no longer depends on its input, with the reason in
            ``ticket.meta["collapsed"]``, instead of an error.
        known: a dict to keep scores in. Give the same one to several calls with the same model, batches, loss, train
            and seed: a method that scores once is then scored for the first of them only, and thresholded for each.
        shared: every rank of torch.distributed has the same model and is given the same batches. Gradients and path
            counts are then shared among the ranks, batch by batch, and the ticket is that of one process. An error on
            any rank is then one that ends the work of all.

    Raises:
        PxframeError: bad arguments; a scorer that fails or gives scores that are not finite; a network that collapsed.
            The message names scorer, round and layer.
    """
    method, settings = build_scorer(scorer, options, train, prune)
    asked: dict[str, Any] = {"sparsity": sparsity, "flops": flops, "params": params, "latency": latency}
    asked |= {"rounds": rounds, "schedule": schedule, "scope": scope, "distribution": distribution}
    asked |= {"granularity": granularity, "exclude": exclude, "refit": refit}
    plan = Plan.of(method, asked, settings)
    model = unwrapped(model)

    data = Batches(batches, device_of(model), shared)
    run = Run(model, data, method, loss, train, seed, known)

    def work() -> Ticket:
        return run.made(plan, allow_collapse) if plan.target is None else run.aimed(plan, allow_collapse)

    ticket = ranks.broadcast_object(work()) if shared else ranks.from_first(work)
    host().notify("pxframe_ticket_made", ticket=ticket)
    return ticket
