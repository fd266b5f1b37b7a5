"""Which tickets a job makes: one for each scorer and level of sparsity, and the controls beside them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pxframe.base.errors import PxframeError, within
from pxframe.job.config import Prune, listed
from pxframe.job.made import digest
from pxframe.plugin.registry import build, controls, default_scorer
from pxframe.pruning.plan import PLAN_KEYS, Plan, split_settings
from pxframe.pruning.target import LEVELS
from pxframe.refits.table import build_refit
from pxframe.selection.rows import is_rows
from pxframe.ticket.ticket import Ticket

#: Settings that a control copies from the ticket it is compared with; it keeps its own values for all others.
SHARED = (*LEVELS, "scope", "distribution", "granularity", "exclude", "refit")
_LONGEST = 100  # characters of a name, which is the name of a folder


@dataclass(frozen=True)
class Pruning:
    """How one ticket is made.

    Attributes:
        name: of the ticket's file and of its rows: ``METHOD-LEVEL``.
        method: the scorer's name, with the options and settings that the config gives for it alone, where they are not
            its usual ones. So names stay what they are when other scorers join the job.
        scorer: ``dict(type=NAME, **options)``.
        own: the settings that the config gives for this scorer alone.
        settings: all further arguments of :func:`pxframe.prune`, ``own`` included.
        needs: what the scorer reads (:attr:`pxframe.Scorer.needs`).
    """

    name: str
    method: str
    scorer: Mapping[str, Any]
    own: Mapping[str, Any]
    settings: Mapping[str, Any]
    needs: str


def prunings(prune: Prune) -> dict[str, Pruning]:
    """Every ticket of a config by name, controls included: the densest first, controls behind what they are beside.

    Raises:
        PxframeError: an unknown scorer or option, values that do not go together, or two tickets of one name.
    """
    with within("prune"):
        shared = prune.settings()
        scorers = listed(default_scorer() if prune.scorer is None else prune.scorer)
        if not scorers:
            raise PxframeError("'scorer' is an empty list")
        levels = _levels({key: getattr(prune, key) for key in LEVELS})
        found: dict[str, Pruning] = {}
        for scorer in scorers:
            config, own = split_settings(scorer)
            of_its_own = {key: own.pop(key) for key in LEVELS if key in own}
            for level in _levels(of_its_own) if of_its_own else levels:
                given = {**shared, **own, **level}
                pruning = _pruning(config, own, given, shared)
                if pruning.name in found:
                    raise PxframeError(
                        f"there would be two tickets {pruning.name!r}: a scorer or a sparsity is listed twice"
                    )
                found[pruning.name] = pruning
        beside = [_controls(prune.controls, one.settings, one.own) for one in found.values()]
        return _ordered([*found.values(), *(control for some in beside for control in some)])


def _levels(given: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each sparsity and each target by itself; one without any if none is given."""
    levels = []
    for key, values in given.items():
        if values is not None and not listed(values):
            raise PxframeError(f"{key!r} is an empty list")
        levels += [{key: value} for value in listed(values) if value is not None]
    return levels or [{}]


def controls_of(ticket: Ticket, prune: Prune, names: Iterable[str]) -> dict[str, Pruning]:
    """The controls beside a ticket that was made elsewhere, by what its ``meta`` says of it.

    Args:
        names: of all parameters of the network; those that the ticket has no mask for are excluded.
    """
    keys = ("scope", "distribution", "granularity")
    settings: dict[str, Any] = {key: ticket.meta[key] for key in keys if key in ticket.meta}
    counted = "granularity" in settings and "sparsity_asked" in ticket.meta  # in channels, perhaps
    level = {"sparsity": ticket.meta["sparsity_asked"] if counted else ticket.sparsity}
    settings |= ticket.meta.get("target") or level
    settings["exclude"] = [name for name in names if name not in ticket.masks]
    settings["exclude"] += [p for p in ticket.meta.get("exclude") or () if is_rows(p)]
    with within("prune"):
        found = _controls(prune.controls, settings, {})
    return _ordered(found)


def _pruning(
    scorer: Mapping[str, Any], own: Mapping[str, Any], given: Mapping[str, Any], shared: Mapping[str, Any]
) -> Pruning:
    method = build("scorer", scorer, beside=PLAN_KEYS)
    plan = Plan.of(method, given)
    target = plan.target
    settings = {"sparsity": plan.sparsity} if target is None else {target.kind: target.share}
    settings |= {key: getattr(plan, key) for key in ("rounds", "schedule", "scope", "distribution")}
    asked = {"granularity": "weight", **method.defaults, **{k: v for k, v in given.items() if v is not None}}
    settings |= {key: asked[key] for key in ("granularity", "exclude", "refit") if key in asked}
    usual = {name: p.default for name, p in inspect.signature(type(method)).parameters.items()}
    usual |= {**method.defaults, "rounds": method.rounds, **shared}
    told = {**{key: value for key, value in scorer.items() if key != "type"}, **own}
    label = _label(method.name, {key: value for key, value in told.items() if key not in usual or usual[key] != value})
    # A scorer with a sparsity of its own makes one ticket, whatever the levels of the others.
    name = label
    if any(key in given for key in LEVELS):
        name += f"-{_percent(plan.sparsity)}" if target is None else f"-{target.kind}={_percent(target.share)}"
    return Pruning(name, label, dict(scorer), dict(own), settings, method.needs)


def _controls(names: Sequence[str] | None, settings: Mapping[str, Any], own: Mapping[str, Any]) -> list[Pruning]:
    """The controls (None: all that are registered) beside a ticket that is made with ``settings``.

    Args:
        own: those of the settings that the config gives for the ticket's scorer alone.
    """
    found = []
    for name in controls() if names is None else names:
        method = build("scorer", name)
        # A control with a sparsity of its own, like the dense network, is one for all: it shares what the job sets.
        ignored = {*method.defaults, *((*own, *LEVELS) if "sparsity" in method.defaults else ())}
        if build_refit(settings.get("refit", "keep")).when == "between":  # it chooses a mask, which a control does not
            ignored.add("refit")
        given = {key: value for key, value in settings.items() if key in SHARED and key not in ignored}
        found.append(_pruning({"type": name}, {k: v for k, v in own.items() if k in given}, given, {}))
    return found


def _ordered(found: Iterable[Pruning]) -> dict[str, Pruning]:
    """By name, the first of each; the densest first, and of one level as they were found."""
    every: dict[str, Pruning] = {}
    for pruning in found:
        every.setdefault(pruning.name, pruning)
    return {p.name: p for p in sorted(every.values(), key=lambda p: round(_removed(p.settings), 3))}


def _removed(settings: Mapping[str, Any]) -> float:
    """The share that is removed, whatever it is a share of."""
    return settings["sparsity"] if "sparsity" in settings else 1 - next(settings[k] for k in LEVELS if k in settings)


def _percent(sparsity: float) -> str:
    """With two decimals, or as many more as it has."""
    text = f"{100 * sparsity:.6f}".rstrip("0")
    return text if len(text.partition(".")[2]) > 2 else f"{100 * sparsity:.2f}"


def _label(name: str, options: Mapping[str, Any]) -> str:
    """``name-key=value-...``, fit for the name of a file."""
    text = "-".join([name, *(f"{key}={_text(value)}" for key, value in options.items())])
    text = re.sub(r"[^A-Za-z0-9_.+=-]+", "_", text)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 9]}-{digest(dict(options))[:8]}"


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return "+".join(_text(v) if k == "type" else f"{k}={_text(v)}" for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return "+".join(map(_text, value))
    return str(value)
