"""Equal scores and nothing pruned: the dense network, to compare tickets with."""

from typing import Any, ClassVar

import torch

import pxframe


class Dense(pxframe.Scorer):
    """s = 1 for every weight. At its default sparsity of zero the ticket keeps all of them."""

    name = "dense"
    needs = "nothing"
    defaults: ClassVar[dict[str, Any]] = {
        "sparsity": 0.0,
        "rounds": 1,
        "granularity": "weight",
        "scope": "global",
        "distribution": "uniform",
        "schedule": "exponential",
    }

    def score(self, net, batches):
        return {name: torch.ones_like(weight) for name, weight in net.weights.items()}


@pxframe.hookimpl
def pxframe_register(register):
    register.scorer(Dense, control=True)
