"""The importances of the library Torch-Pruning, to stand beside the methods here."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import pxframe
from pxframe.base.options import one_of
from pxframe.slimming.groups import Graph, load_torch_pruning

#: Torch-Pruning's class of each importance.
IMPORTANCES = {"magnitude": "GroupMagnitudeImportance", "taylor": "GroupTaylorImportance"}
_ENTRY = {"type": "channel", "groups": "entry"}


@dataclass
class TorchPruning(pxframe.Scorer):
    """s of Torch-Pruning's own code, for groups of channels that can only be removed together.

    Fang, Ma, Song, Mi, Wang, "DepGraph: Towards Any Structural Pruning", CVPR 2023; the package ``torch-pruning``, with
    the defaults of its classes. A group's score is the mean over its layers, those that read the channels as well as
    those that make them, divided by the mean over the group's channels: of the sum of theta^2 of a channel
    (``"magnitude"``), or of the sum of |theta dL/dtheta| (``"taylor"``), the gradients of all batches added up.

    The library sees a copy of the model that holds the masked weights. Gradients are taken in the mode the model is
    in. Channels pruned in an earlier round are still there, with weights of zero, where the library itself would have
    taken them out: the means count them. Scores are float32, ``[channels]`` for each group.

    Args:
        importance: ``"magnitude"`` or ``"taylor"``. The first needs no labels; batches are needed all the same, since
            the groups are found by running the model.

    Raises:
        PxframeError: an option is out of its range; Torch-Pruning is not installed; the granularity is not
            ``dict(type="channel", groups="entry")``, the default here.
    """

    importance: str = "magnitude"

    name = "torch_pruning"
    needs = "nothing"
    packages = ("torch-pruning",)
    defaults: ClassVar[Mapping[str, Any]] = {"granularity": _ENTRY}

    def __post_init__(self):
        one_of("torch_pruning", "importance", self.importance, tuple(IMPORTANCES))
        if self.importance == "taylor":
            self.needs = "labels"

    def options(self):
        return {"importance": self.importance}

    def score(self, net, batches):
        raise pxframe.PxframeError(f"it scores groups of channels only: take granularity={_ENTRY}")

    def score_channels(self, net, batches):
        return self.score(net, batches)

    def score_groups(self, net, batches):
        importance = getattr(load_torch_pruning().importance, IMPORTANCES[self.importance])()
        model = net.copied()
        if self.importance == "taylor":
            gradients = net.gradients(batches, {**net.parameters, **net.masked()})
            for name, parameter in model.named_parameters():
                parameter.grad = gradients[name]
        inputs, _ = next(iter(batches))
        found = Graph(model.eval(), inputs).importances(importance)
        return {group: found[group] for group in net.ties}


@pxframe.hookimpl
def pxframe_register(register):
    register.scorer(TorchPruning)
