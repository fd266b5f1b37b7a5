"""Groups of channels that can only be removed together, as Torch-Pruning's dependency graph finds them."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from pxframe.base.errors import PxframeError
from pxframe.base.inputs import arguments, leaves

#: Layers whose outputs, or inputs, are channels of a group.
LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
#: Layers that mix the channels of a sample: what they give for one depends on how many there are.
_MIXING = (nn.LayerNorm, nn.GroupNorm, nn.LocalResponseNorm, nn.CrossMapLRN2d)

_log = logging.getLogger(__name__)


@dataclass
class Group:
    """Channels 0, 1, ... of a layer's outputs, and all that has to change when some of them are removed.

    Attributes:
        root: name of the layer that the channels are counted in.
        size: how many channels there are.
        makers: names of the layers that make them.
        readers: by name of a layer that reads them, for each channel the indices of its inputs.
        whole: why no channel may be removed; the empty string if they may.
    """

    root: str
    size: int
    makers: list[str] = field(default_factory=list)
    readers: dict[str, list[list[int]]] = field(default_factory=dict)
    whole: str = ""


class Graph:
    """The dependency graph of a model.

    Args:
        model: in eval mode. Channels are removed from it in place.
        example: inputs, in any of the forms of :mod:`pxframe.base.inputs`.

    Raises:
        PxframeError: Torch-Pruning is not installed, or cannot read the model.
    """

    def __init__(self, model: nn.Module, example: Any) -> None:
        pruning = load_torch_pruning()
        args, kwargs = arguments(example)
        self._model = model
        self._names = {module: name for name, module in model.named_modules()}
        self._graph = pruning.DependencyGraph()
        try:
            with torch.enable_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._graph.build_dependency(
                    model,
                    example_inputs=example,
                    forward_fn=lambda model, _: model(*args, **kwargs),
                    output_transform=lambda output: [t for t in leaves(output) if t.grad_fn is not None],
                    verbose=False,
                )
                self._found = list(self._graph.get_all_groups())
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # whatever it meets in a model that it does not know
            reason = str(error).strip().partition("\n")[0]
            raise PxframeError(
                f"Torch-Pruning cannot read the model's graph ({type(error).__name__}: {reason}); "
                f"slim a part of it instead, such as model.backbone"
            ) from error

    def groups(self) -> Iterator[Group]:
        """The groups whose channels some layer reads: those of outputs of the model stay out."""
        for found in self._found:
            group = self._read(found)
            if group is not None and group.readers:
                yield group

    def remove(self, group: Group, channels: list[int]) -> None:
        """Take channels of a group out of the model."""
        layer = self._model.get_submodule(group.root)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pruner = self._graph.get_pruner_of_module(layer)
            self._graph.get_pruning_group(layer, pruner.prune_out_channels, sorted(channels)).prune()

    def _read(self, found: Any) -> Group | None:
        root = self._names.get(found[0].dep.target.module)
        if root is None:
            return None
        group = Group(root, len(found[0].idxs))
        for item in found:
            module, handler = item.dep.target.module, item.dep.handler
            if isinstance(module, _MIXING):
                group.whole = f"{self._names[module]} ({type(module).__name__}) mixes its channels"
            if not isinstance(module, LAYERS):
                continue
            name, grouped = self._names[module], getattr(module, "groups", 1)
            if 1 < grouped < module.in_channels:
                group.whole = f"{name} is a convolution of {grouped} groups"
            indices: list[list[int]] = [[] for _ in range(group.size)]
            for index, channel in zip(item.idxs, item.root_idxs, strict=True):
                indices[channel].append(int(index))
            depthwise = grouped > 1 and grouped == module.in_channels
            if depthwise or self._graph.is_out_channel_pruning_fn(handler):
                group.makers.append(name)
            elif name in group.readers:
                group.whole = f"{name} reads them in two ways"
            else:
                group.readers[name] = indices
        return group


def load_torch_pruning() -> Any:
    """Torch-Pruning, which only slimming needs.

    Raises:
        PxframeError: it is not installed.
    """
    try:
        import torch_pruning
    except ImportError:
        raise PxframeError("slimming needs Torch-Pruning: pip install pxframe[slim]") from None
    return torch_pruning
