"""What users hand to :func:`pxframe.prune` and :func:`pxframe.score`, made into what the loop works with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pxframe.base.errors import PxframeError, near
from pxframe.plugin.registry import build, default_scorer
from pxframe.pruning.plan import split_settings
from pxframe.scoring.batches import Batches
from pxframe.scoring.net import Train
from pxframe.scoring.scorer import Scorer

AnyScorer = str | Mapping[str, Any] | Scorer


def build_scorer(
    scorer: AnyScorer | None, options: Mapping[str, Any], train: Train | None
) -> tuple[Scorer, dict[str, Any]]:
    """The scorer that a user means (None: the registered default), and the settings of a plan in its config.

    Raises:
        PxframeError: unknown scorer or option, or a scorer that needs training where there is none.
    """
    settings: dict[str, Any] = {}
    if isinstance(scorer, Scorer):
        if options:
            raise PxframeError(f"options {sorted(options)} go to the constructor when a Scorer is passed")
        method = scorer
    else:
        config = default_scorer() if scorer is None else scorer
        if not isinstance(config, (str, Mapping)):
            raise PxframeError(f"scorer: give a name, dict(type=NAME, ...) or a pxframe.Scorer, got {config!r}")
        built_from, settings = split_settings(config)
        method = build("scorer", {**built_from, **options})
    if method.needs == "training" and train is None:
        raise PxframeError(
            f"scorer {method.name!r} needs training: pass train=, a function train(model, ticket, start=0, stop=None)"
        )
    return method, settings


def device_of(model: nn.Module) -> torch.device:
    """The device of the model's parameters.

    Raises:
        PxframeError: it has none.
    """
    parameter = next(model.parameters(), None)
    if parameter is None:
        raise PxframeError("the model has no parameters, so there is nothing to prune; pass a model with weights")
    return parameter.device


def example_of(method: Scorer, data: Batches) -> Any:
    """The first input batch, or None if there is no data and the scorer needs none."""
    first = data.first()
    if first is None and method.needs in ("inputs", "labels"):
        raise PxframeError(f"scorer {method.name!r} needs {method.needs}: 'batches' gave no (input, target) pair")
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
