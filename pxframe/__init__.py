"""Foresight pruning of vision backbones: score, prune once, transfer the ticket.

The public API is what this module names; see the README for a tour and ``pxframe.plugin.hookspecs`` for plug-ins.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pxframe.base.errors import PxframeError
    from pxframe.images.dataset import Images
    from pxframe.images.metrics import TorchMetric
    from pxframe.images.model import ImageModel
    from pxframe.images.task import TrainedTask
    from pxframe.network.net import Net
    from pxframe.plugin.backbone import Backbone
    from pxframe.plugin.checkpoint import load_checkpoint
    from pxframe.plugin.hookspecs import hookimpl
    from pxframe.plugin.registry import backbones, build_backbone, scorers, tasks
    from pxframe.plugin.task import Picture, Task
    from pxframe.pruning.loop import prune, score
    from pxframe.pruning.refitting import refit
    from pxframe.scoring.scorer import Scorer
    from pxframe.slimming.build import Slim, slim
    from pxframe.slimming.files import load_slim
    from pxframe.slimming.onnx_file import export_onnx
    from pxframe.speed.cpu import sparse_on_cpu
    from pxframe.speed.gpu import sparse_on_gpu
    from pxframe.speed.sparse import Sparse
    from pxframe.ticket.ticket import Ticket
    from pxframe.training.make import make_runner

#: Where each name is. A module is imported when its name is first used: torch takes seconds to import, and a command
#: with a mistake in it must not wait for it.
_PLACES = {
    "Backbone": "pxframe.plugin.backbone",
    "ImageModel": "pxframe.images.model",
    "Images": "pxframe.images.dataset",
    "Net": "pxframe.network.net",
    "Picture": "pxframe.plugin.task",
    "PxframeError": "pxframe.base.errors",
    "Scorer": "pxframe.scoring.scorer",
    "Slim": "pxframe.slimming.build",
    "Sparse": "pxframe.speed.sparse",
    "Task": "pxframe.plugin.task",
    "Ticket": "pxframe.ticket.ticket",
    "TorchMetric": "pxframe.images.metrics",
    "TrainedTask": "pxframe.images.task",
    "backbones": "pxframe.plugin.registry",
    "build_backbone": "pxframe.plugin.registry",
    "export_onnx": "pxframe.slimming.onnx_file",
    "hookimpl": "pxframe.plugin.hookspecs",
    "load_checkpoint": "pxframe.plugin.checkpoint",
    "load_slim": "pxframe.slimming.files",
    "make_runner": "pxframe.training.make",
    "prune": "pxframe.pruning.loop",
    "refit": "pxframe.pruning.refitting",
    "score": "pxframe.pruning.loop",
    "scorers": "pxframe.plugin.registry",
    "slim": "pxframe.slimming.build",
    "sparse_on_cpu": "pxframe.speed.cpu",
    "sparse_on_gpu": "pxframe.speed.gpu",
    "tasks": "pxframe.plugin.registry",
}

__all__ = [
    "Backbone",
    "ImageModel",
    "Images",
    "Net",
    "Picture",
    "PxframeError",
    "Scorer",
    "Slim",
    "Sparse",
    "Task",
    "Ticket",
    "TorchMetric",
    "TrainedTask",
    "backbones",
    "build_backbone",
    "export_onnx",
    "hookimpl",
    "load_checkpoint",
    "load_slim",
    "make_runner",
    "prune",
    "refit",
    "score",
    "scorers",
    "slim",
    "sparse_on_cpu",
    "sparse_on_gpu",
    "tasks",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'pxframe' has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return __all__
