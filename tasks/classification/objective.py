"""A loss and a metric from a config, for targets that need not be class numbers."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS, MODELS
from torch import Tensor, nn
from torchmetrics import Metric

import pxframe
from pxframe.images.model import matched


class Loss:
    """A loss module or function that accepts outputs ``[N, 1]`` with targets ``[N]``, and whole numbers as targets.

    Targets of the outputs' shape are compared with them number by number, so they get the outputs' type. All others
    are left as they are: class numbers, for a cross-entropy.
    """

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.function = function

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        output = matched(output, target)
        if target.shape == output.shape:
            target = target.to(output.dtype)
        if isinstance(self.function, nn.Module):  # it may hold weights of classes
            self.function.to(output.device)
        return self.function(output, target)


def build_loss(config: Mapping[str, Any] | str) -> Loss:
    """The loss that ``dict(type=NAME, **options)`` or a bare name describes.

    NAME is dotted, or in mmengine's ``MODELS``; it names a class or a function of (outputs, targets).
    """
    kind, options = _split(config)
    found = _found(MODELS, kind, "loss")
    return Loss(found(**options) if inspect.isclass(found) else functools.partial(found, **options))


@dataclass(frozen=True)
class Measure:
    """How a test is measured: the metric's class and options, and how its number is compared and shown."""

    metric: Callable[..., Metric | BaseMetric]
    options: Mapping[str, Any]
    name: str
    higher_is_better: bool
    unit: str

    def build(self, file: Path | None = None) -> BaseMetric:
        """A metric for one run; ``file`` is where to write targets and outputs."""
        metric = self.metric(**self.options)
        if isinstance(metric, Metric):
            return pxframe.TorchMetric(metric, self.name, 100.0 if self.unit == "%" else 1.0, file)
        if file is not None:
            raise pxframe.PxframeError("'save_predictions' needs a metric of torchmetrics")
        return metric


def build_measure(config: Mapping[str, Any] | str) -> Measure:
    """What ``dict(type=NAME, name=..., higher_is_better=..., unit=..., **options)`` describes.

    NAME is the dotted name of a torchmetrics class, or of an mmengine metric, or a name in mmengine's ``METRICS``.
    """
    kind, options = _split(config)
    name, better, unit = options.pop("name", None), options.pop("higher_is_better", None), options.pop("unit", "")
    found = _found(METRICS, kind, "metric")
    metric = found(**options)
    if isinstance(metric, Metric):
        name = name or type(metric).__name__
        better = metric.higher_is_better if better is None else better
    elif not isinstance(metric, BaseMetric):
        raise pxframe.PxframeError(f"'type' {kind!r} is no metric of torchmetrics or mmengine")
    elif name is None:
        raise pxframe.PxframeError(f"give the 'name' of the number to compare by, among those that {kind!r} computes")
    else:
        better = True if better is None else better
    if not (isinstance(name, str) and isinstance(unit, str)):
        raise pxframe.PxframeError(f"'name' and 'unit' must be strings, got {name!r} and {unit!r}")
    if not isinstance(better, bool):
        raise pxframe.PxframeError(f"say 'higher_is_better', True or False, as {kind!r} does not")
    return Measure(found, options, name, better, unit)


def _split(config: Mapping[str, Any] | str) -> tuple[Any, dict[str, Any]]:
    if not isinstance(config, (str, Mapping)):
        raise pxframe.PxframeError(f"must be a dict(type=NAME, ...) or a name, got {config!r}")
    options = {"type": config} if isinstance(config, str) else dict(config)
    return options.pop("type", None), options


def _found(registry: Any, kind: Any, what: str) -> Any:
    found = registry.get(kind) if isinstance(kind, str) else kind
    if not callable(found):
        raise pxframe.PxframeError(f"there is no {what} {kind!r}; give a dotted name such as 'torch.nn.MSELoss'")
    return found
