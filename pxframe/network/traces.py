"""The traces of a model, each made when it is first asked for and kept."""

from __future__ import annotations

from typing import Any, Literal, get_args

from torch import nn

from pxframe.engine.factors.sharing import sharing
from pxframe.engine.graph import Trace
from pxframe.engine.tracing.trace import trace_model
from pxframe.running.inputs import signature

#: Whether a factor (an attention weight, a gate) only multiplies the paths, or shares their score.
Factors = Literal["shared", "recorded"]
FACTORS = get_args(Factors)


class Traces:
    """By the form of an input and how factors are read."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._made: dict[Any, Trace] = {}

    def of(self, inputs: Any, factors: Factors) -> Trace:
        """See :meth:`pxframe.network.net.Net.trace`."""
        key = (signature(inputs), factors)
        if key not in self._made:
            if factors == "shared":
                self._made[key] = sharing(self.of(inputs, "recorded"))
            else:
                self._made[key] = trace_model(self._model, inputs)
        return self._made[key]
