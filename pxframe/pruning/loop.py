"""Scoring and pruning: the loop of rounds around any scorer."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn

from pxframe.base.bars import Bar
from pxframe.base.errors import PxframeError, near, within
from pxframe.base.undisturbed import seeded
from pxframe.base.versions import versions
from pxframe.plugin.host import host
from pxframe.plugin.registry import build
from pxframe.pruning.checks import check_connected, check_scores, emptied
from pxframe.pruning.granularity import Granularity, build_granularity
from pxframe.pruning.plan import Plan
from pxframe.scoring.batches import Batches
from pxframe.scoring.flops import macs
from pxframe.scoring.net import Loss, Net, Train
from pxframe.scoring.prunable import prunable
from pxframe.scoring.scorer import Scorer
from pxframe.ticket.file import fingerprint
from pxframe.ticket.ticket import Ticket

_log = logging.getLogger(__name__)

AnyScorer = str | Mapping[str, Any] | Scorer


def score(
    model: nn.Module,
    batches: Iterable[Any] | None,
    scorer: AnyScorer = "px",
    masks: Mapping[str, Tensor] | None = None,
    loss: Loss | None = None,
    train: Train | None = None,
    seed: int = 0,
    **options: Any,
) -> dict[str, Tensor]:
    """Score every prunable weight once. The model and the caller's random states are left bit for bit as they were.

    Args:
        model: any module made of torch operations, on any device, in the mode its loss is to be taken in.
        batches: iterable of ``(input, target)`` pairs; None for scorers that need nothing.
        scorer: a registered name, ``dict(type=NAME, **options)``, or a :class:`pxframe.Scorer`.
        masks: bool tensors by parameter name, true where kept; just these parameters are scored. Default: all
            prunable ones, and all of them kept.
        loss: ``loss(output, target) -> scalar``; default: cross-entropy.
        train: ``train(model, ticket, start=0, stop=None)``, for scorers that need training: train ``model`` in place,
            with what ``ticket`` prunes kept at zero (``ticket.guard``), from optimizer step ``start`` up to step
            ``stop`` of its schedule (None: to the end), the same way every time.
        seed: of every random draw.
        options: the scorer's own.

    Returns:
        a float tensor per prunable weight, of its shape; higher is kept.

    Raises:
        PxframeError: unknown scorer or option, missing data, masks that do not fit, or scores that are not finite.
    """
    method = _build(scorer, options)
    _check_train(method, train)
    device = _device(model)
    data = Batches(batches, device)
    with _plain_autograd(model), seeded(seed, device) as generator:
        names = list(masks) if masks is not None else prunable(model, _example(method, data))
        net = Net(model, _checked_masks(model, masks, names), loss, generator, train)
        scores = method.score(net, data)
        net.settle()
        return check_scores(scores, net.weights, f"scorer {method.name!r}")


def prune(
    model: nn.Module,
    batches: Iterable[Any] | None,
    scorer: AnyScorer = "px",
    sparsity: float | None = None,
    rounds: int | None = None,
    schedule: str = "exponential",
    scope: str = "global",
    distribution: str = "uniform",
    granularity: str | Mapping[str, Any] | Granularity = "weight",
    loss: Loss | None = None,
    train: Train | None = None,
    exclude: Iterable[str] = (),
    seed: int = 0,
    **options: Any,
) -> Ticket:
    """Prune ``model`` before training and return the ticket; the model itself is left bit for bit as it was.

    In round t of T the scorer scores the network masked so far, and exactly ``round(density_t * entries)`` are kept,
    entries being weights, or channels. What is pruned in one round stays pruned, unless the scorer says it may return.

    Args:
        model, batches, scorer, loss, train, seed, options: as for :func:`score`.
        sparsity: share of prunable weights (or channels) to remove, in [0, 1); default: 0.982, and 1 - N/M for N:M.
        rounds: T; default: the scorer's own (100 for iterative methods, 1 for single-shot ones).
        schedule: ``"exponential"`` or ``"linear"``.
        scope: ``"global"``, one threshold over all layers, or ``"layer"``, one in each.
        distribution: of the density over layers where ``scope="layer"``: ``"uniform"`` or ``"erk"``.
        granularity: ``"weight"``, ``"channel"``, an N:M pattern (``"2:4"``), or ``dict(type=..., **options)`` with the
            options of :mod:`pxframe.pruning.granularity`.
        exclude: parameter names or patterns (``"head.*"``) that are not pruned and not counted.

    Raises:
        PxframeError: bad arguments; scores that are not finite, or a network whose output no longer depends on its
            input, naming scorer, round and layer.
    """
    if isinstance(scorer, Mapping) and "rounds" in scorer:
        scorer = dict(scorer)
        own = scorer.pop("rounds")
        rounds = own if rounds is None else rounds
    method = _build(scorer, options)
    _check_train(method, train)
    unit = build_granularity(granularity)
    plan = Plan(
        unit.default_sparsity if sparsity is None else sparsity,
        method.rounds if rounds is None else rounds,
        schedule,
        scope,
        distribution,
        unit,
    )
    exclude = (exclude,) if isinstance(exclude, str) else tuple(exclude)
    device = _device(model)
    data = Batches(batches, device)
    with _plain_autograd(model), seeded(seed, device) as generator:
        example = _example(method, data)
        masks = _checked_masks(model, None, prunable(model, example, exclude))
        net = Net(model, {name: masks[name] for name in unit.names(masks)}, loss, generator, train)
        unit.check_layers(net, example)
        with Bar(f"{method.name} to {plan.sparsity:.2%} sparsity", plan.rounds) as bar:
            for number in range(1, plan.rounds + 1):
                where = f"scorer {method.name!r}, round {number} of {plan.rounds}"
                net.density = plan.density(number)
                scores = unit.score(method, net, data)
                with within(where):
                    net.settle()
                scores = check_scores(scores, plan.entries(net.masks), where)
                net.masks = plan.masks(scores, net.masks, number, method.revives)
                if example is not None:
                    check_connected(net, example, where)
                host().notify(
                    "pxframe_round_done",
                    scorer=method.name,
                    round=number,
                    rounds=plan.rounds,
                    density=net.density,
                    scores=scores,
                    masks=dict(net.masks),
                )
                bar.advance(f"density {net.density:.2%}")
        start = dict(method.restart(net) or {})
        costs = _macs(net, example)
        start |= unit.restart(net, example, {name: start.get(name, theta) for name, theta in net.weights.items()})
    ticket = Ticket({name: mask.cpu() for name, mask in net.masks.items()}, start=start)
    ticket.meta = {
        "scorer": method.name,
        "options": method.options(),
        **plan.describe(),
        "sparsity": ticket.sparsity,
        "exclude": list(exclude),
        "seed": seed,
        "emptied": emptied(ticket.masks),
        "fingerprint": fingerprint(net.weights),
        "macs": costs,
        "input": None if example is None else list(example.shape[1:]),
        "versions": versions(),
    }
    if ticket.emptied:
        _log.warning("%s: nothing is left of %s", method.name, ", ".join(ticket.emptied))
    host().notify("pxframe_ticket_made", ticket=ticket)
    return ticket


def _build(scorer: AnyScorer, options: Mapping[str, Any]) -> Scorer:
    if isinstance(scorer, Scorer):
        if options:
            raise PxframeError(f"options {sorted(options)} go to the constructor when a Scorer is passed")
        return scorer
    config = {"type": scorer} if isinstance(scorer, str) else dict(scorer)
    return build("scorer", {**config, **options})


def _check_train(method: Scorer, train: Train | None) -> None:
    if method.needs == "training" and train is None:
        raise PxframeError(
            f"scorer {method.name!r} needs training: pass train=, a function train(model, ticket, start=0, stop=None)"
        )


def _example(method: Scorer, data: Batches) -> Tensor | None:
    """The first input batch, or None where there is no data and the scorer needs none."""
    first = data.first()
    if first is None and method.needs in ("inputs", "labels"):
        raise PxframeError(f"scorer {method.name!r} needs {method.needs}: 'batches' gave no (input, target) pair")
    return None if first is None else first[0]


def _macs(net: Net, example: Tensor | None) -> dict[str, int] | None:
    """Multiply-accumulates of one input by prunable weight; None where there is no input, or no graph to read."""
    if example is None:
        return None
    with suppress(PxframeError):
        costs = macs(net.trace(example[:1]))
        return {name: costs[name] for name in net.masks if name in costs}
    return None


def _checked_masks(model: nn.Module, masks: Mapping[str, Tensor] | None, names: Iterable[str]) -> dict[str, Tensor]:
    parameters = dict(model.named_parameters())
    for name, mask in (masks or {}).items():
        if name not in parameters:
            raise PxframeError(f"masks: the model has no parameter {name!r}{near(name, parameters)}")
        if mask.shape != parameters[name].shape:
            shapes = f"{tuple(mask.shape)}, its weight {tuple(parameters[name].shape)}"
            raise PxframeError(f"masks: the mask of {name!r} has shape {shapes}")
    given = masks or {}
    return {
        name: given[name].to(parameters[name].device, torch.bool)
        if name in given
        else torch.ones_like(parameters[name], dtype=torch.bool)
        for name in names
    }


def _device(model: nn.Module) -> torch.device:
    parameter = next(model.parameters(), None)
    if parameter is None:
        raise PxframeError("the model has no parameters")
    return parameter.device


@contextmanager
def _plain_autograd(model: nn.Module) -> Iterator[None]:
    """Full precision, the same numbers each time, and ordinary autograd inside, whatever mode the caller is in."""
    cudnn = torch.backends.cudnn
    exact = cudnn.flags(enabled=cudnn.enabled, deterministic=True, allow_tf32=False)
    with exact, torch.inference_mode(False), torch.enable_grad(), torch.autocast(_device(model).type, enabled=False):
        yield
