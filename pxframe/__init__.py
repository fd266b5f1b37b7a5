"""Foresight pruning of vision backbones: score, prune once, transfer the ticket.

The public API is what this module names; see the README for a tour and ``pxframe.hookspecs`` for plug-ins.
"""

from pxframe.backbone import Backbone
from pxframe.errors import PxframeError
from pxframe.hookspecs import hookimpl
from pxframe.pruning import prune, score
from pxframe.registry import backbones, build_backbone, scorers, tasks
from pxframe.scorer import Scorer
from pxframe.task import Task
from pxframe.ticket import Ticket

__all__ = [
    "Backbone",
    "PxframeError",
    "Scorer",
    "Task",
    "Ticket",
    "backbones",
    "build_backbone",
    "hookimpl",
    "prune",
    "score",
    "scorers",
    "tasks",
]
