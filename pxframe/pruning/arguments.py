"""What users hand to :func:`pxframe.prune` and :func:`pxframe.score`, made into what the loop works with."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pxframe.base.errors import PxframeError, near, some
from pxframe.network.trained import Train
from pxframe.passes.batches import Batches
from pxframe.plugin.registry import build, default_scorer, find, names
from pxframe.pruning.plan import PLAN_KEYS, split_settings
from pxframe.running.calls import Loss
from pxframe.scoring.scorer import Scorer

AnyScorer = str | Mapping[str, Any] | Scorer
#: What a scorer may need without reading a target.
_UNLABELLED = ("nothing", "inputs")


def build_scorer(
    scorer: AnyScorer | None, options: Mapping[str, Any], train: Train | None, caller: Callable[..., Any]
) -> tuple[Scorer, dict[str, Any]]:
    """The scorer that a user means (None: the registered default), and the settings of a plan in its config.

    Args:
        options: the keyword arguments of ``caller`` that are none of its own.
        caller: the function of this library that the user called.

    Raises:
        PxframeError: unknown scorer or option, or a scorer that needs training where there is none.
    """
    settings: dict[str, Any] = {}
    if isinstance(scorer, Scorer):
        for option in options:
            raise PxframeError(
                f"pxframe.{caller.__name__} takes no argument {option!r}{_like(option, caller)}; options of "
                f"a scorer go to its constructor when a Scorer is passed"
            )
        method = scorer
    else:
        config = default_scorer() if scorer is None else scorer
        if not isinstance(config, (str, Mapping)):
            raise PxframeError(f"scorer: give a name, dict(type=NAME, ...) or a pxframe.Scorer, got {config!r}")
        built_from, settings = split_settings(config)
        _check_arguments(built_from, options, caller)
        method = build("scorer", {**built_from, **options}, beside=PLAN_KEYS)
    if method.needs == "training" and train is None:
        raise PxframeError(
            f"scorer {method.name!r} needs training: pass train=, a function train(model, ticket, start=0, stop=None)"
        )
    return method, settings


def _check_arguments(config: Mapping[str, Any], options: Mapping[str, Any], caller: Callable[..., Any]) -> None:
    """Refuse keyword arguments that neither ``caller`` nor the scorer takes: a slip in either one's names."""
    name = config.get("type")
    if not options or not isinstance(name, str):
        return
    own = inspect.signature(find("scorer", name)).parameters
    if any(p.kind is p.VAR_KEYWORD for p in own.values()):
        return
    for option in options:
        if option not in own:
            like = _like(option, caller, own)
            raise PxframeError(f"neither pxframe.{caller.__name__} nor scorer {name!r} takes {option!r}{like}")


def _like(option: str, caller: Callable[..., Any], own: Iterable[str] = ()) -> str:
    """Which names are like ``option``: those of the arguments of ``caller``, and the scorer's ``own``."""
    if option in PLAN_KEYS:
        return "; pxframe.prune does"
    parameters = inspect.signature(caller).parameters.values()
    return near(option, [*(p.name for p in parameters if p.kind is not p.VAR_KEYWORD), *own])


def device_of(model: nn.Module) -> torch.device:
    """The device of the model's parameters.

    Raises:
        PxframeError: it has none.
    """
    parameter = next(model.parameters(), None)
    if parameter is None:
        raise PxframeError("the model has no parameters, so there is nothing to prune; pass a model with weights")
    return parameter.device


def example_of(method: Scorer, data: Batches, loss: Loss | None) -> Any:
    """The first input batch, or None if there is no data and the scorer needs none.

    Raises:
        PxframeError: the scorer needs data, or labels, that are not there. A ``loss`` of the user's own may do without.
    """
    first = data.first()
    if first is None and method.needs in ("inputs", "labels"):
        raise PxframeError(f"scorer {method.name!r} needs {method.needs}: 'batches' gave no (input, target) pair")
    if first is not None and method.needs == "labels" and loss is None and first[1] is None:
        without = [name for name in names("scorer") if getattr(find("scorer", name), "needs", "") in _UNLABELLED]
        raise PxframeError(
            f"scorer {method.name!r} needs labels, and the target of batch 0 is None: give targets, a loss= that needs "
            f"none, or a scorer that reads none ({some(without, most=20)})"
        )
    return None if first is None else first[0]


def full_masks(model: nn.Module, names: Iterable[str], masks: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """Bool masks of the parameters called ``names``, on their device: those in ``masks``, else true throughout.

    Raises:
        PxframeError: ``masks`` has a name that the model lacks, or a mask of another shape than its weight.
    """
    parameters = dict(model.named_parameters())
    given = masks or {}
    for name, mask in given.items():
        if name not in parameters:
            raise PxframeError(f"masks: the model has no parameter {name!r}{near(name, parameters)}")
        if mask.shape != parameters[name].shape:
            shapes = f"{tuple(mask.shape)}, its weight {tuple(parameters[name].shape)}"
            raise PxframeError(f"masks: the mask of {name!r} has shape {shapes}")
    return {
        name: given[name].to(parameters[name].device, torch.bool)
        if name in given
        else torch.ones_like(parameters[name], dtype=torch.bool)
        for name in names
    }
