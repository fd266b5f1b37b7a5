"""Foresight pruning of vision backbones: score, prune once, transfer the ticket.

The public API is what this module names; see the README for a tour and ``pxframe.plugin.hookspecs`` for plug-ins.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pxframe.base.errors import PxframeError
from pxframe.plugin.backbone import Backbone
from pxframe.plugin.checkpoint import load_checkpoint
from pxframe.plugin.hookspecs import hookimpl
from pxframe.plugin.registry import backbones, build_backbone, scorers, tasks
from pxframe.plugin.task import Task
from pxframe.pruning.loop import prune, score
from pxframe.scoring.net import Net
from pxframe.scoring.scorer import Scorer
from pxframe.ticket.ticket import Ticket

if TYPE_CHECKING:
    from pxframe.images.dataset import Images
    from pxframe.images.metrics import TorchMetric
    from pxframe.images.model import ImageModel
    from pxframe.images.task import TrainedTask
    from pxframe.training.make import make_runner

#: Imported when first asked for: mmengine's runner takes longer to import than all else that `pxframe list` does.
_LAZY = {
    "ImageModel": "pxframe.images.model",
    "Images": "pxframe.images.dataset",
    "TorchMetric": "pxframe.images.metrics",
    "TrainedTask": "pxframe.images.task",
    "make_runner": "pxframe.training.make",
}

__all__ = [
    "Backbone",
    "ImageModel",
    "Images",
    "Net",
    "PxframeError",
    "Scorer",
    "Task",
    "Ticket",
    "TorchMetric",
    "TrainedTask",
    "backbones",
    "build_backbone",
    "hookimpl",
    "load_checkpoint",
    "make_runner",
    "prune",
    "score",
    "scorers",
    "tasks",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'pxframe' has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return __all__
