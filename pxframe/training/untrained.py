"""What a ticket gives before any training, on a task that the backbone's own classifier was trained for."""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path

from torch import nn

from pxframe.plugin.task import Task
from pxframe.ticket.ticket import Ticket
from pxframe.training.run import Setting, close


def zero_shot(setting: Setting, task: Task, backbone: nn.Module, ticket: Ticket) -> dict[str, float]:
    """The task's metric of the pruned network without training; nothing is changed or kept.

    Returns:
        ``"mask"``: with the backbone's weights and the mask alone; ``"start"``: with the ticket's starting values as
        well, where it has any.
    """
    found = {}
    with tempfile.TemporaryDirectory() as scratch:
        runner = setting.runner(task, copy.deepcopy(backbone), Path(scratch))
        try:
            for what, prepare in {"mask": ticket.apply, "start": ticket.rewind}.items():
                if what == "mask" or ticket.start:
                    prepare(runner.model)
                    found[what] = float(runner.test()[task.metric])
        finally:
            close(runner)
    return found
