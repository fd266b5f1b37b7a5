"""Equal scores for all weights. Nothing is pruned, so the ticket is the dense network that others are compared with."""

from typing import Any, ClassVar

import torch

import pxframe


class Dense(pxframe.Scorer):
    """s = 1 for every weight. The default sparsity is zero, so the ticket keeps all weights."""

    name = "dense"
    needs = "nothing"
    # These are the usual values, repeated on purpose: a control takes over the settings of the ticket that it is
    # compared with, except those it has a default for. So the dense network is the same for every ticket.
    defaults: ClassVar[dict[str, Any]] = {
        "sparsity": 0.0,
        "rounds": 1,
        "granularity": "weight",
        "scope": "global",
        "distribution": "uniform",
        "schedule": "exponential",
        "refit": "keep",
    }

    def score(self, net, batches):
        return {name: torch.ones_like(weight) for name, weight in net.weights.items()}


@pxframe.hookimpl
def pxframe_register(register):
    register.scorer(Dense, control=True)
