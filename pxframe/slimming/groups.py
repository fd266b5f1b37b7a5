"""Groups of channels that can only be removed together, as Torch-Pruning's dependency graph finds them."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from pxframe.base.errors import PxframeError
from pxframe.running.inputs import arguments, leaves

#: Layers whose outputs, or inputs, are channels of a group.
LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
#: Layers that mix the channels of a sample: what they give for one depends on how many there are.
_MIXING = (nn.LayerNorm, nn.GroupNorm, nn.LocalResponseNorm, nn.CrossMapLRN2d)


@dataclass
class Group:
    """Channels 0, 1, ... of a layer's outputs, and all that has to change when some of them are removed.

    Attributes:
        root: name of the layer that the channels are counted in.
        size: how many channels there are.
        makers: by name of a layer that makes them, for each channel the indices of its outputs.
        readers: by name of a layer that reads them, for each channel the indices of its inputs.
        whole: why no channel may be removed; the empty string if they may.
    """

    root: str
    size: int
    makers: dict[str, list[list[int]]] = field(default_factory=dict)
    readers: dict[str, list[list[int]]] = field(default_factory=dict)
    whole: str = ""

    def emptied(self, model: nn.Module) -> list[int]:
        """The channels that no layer multiplies anything for: all of their weights are zero."""
        rows = {name: weight_of(model.get_submodule(name)).flatten(1).any(1) for name in self.makers}
        return [c for c in range(self.size) if not any(rows[name][at[c]].any() for name, at in self.makers.items())]


class Graph:
    """The dependency graph of a model.

    Args:
        model: in eval mode. Channels are removed from it in place.
        example: inputs, in any of the forms of :mod:`pxframe.running.inputs`.

    Raises:
        PxframeError: Torch-Pruning is not installed, or cannot read the model.
    """

    def __init__(self, model: nn.Module, example: Any) -> None:
        pruning = load_torch_pruning()
        args, kwargs = arguments(example)
        #: Layers whose outputs Torch-Pruning cannot follow to those who read them; found with the groups.
        self.lost: list[str] = []
        self._model = model
        self._names = {module: name for name, module in model.named_modules()}
        held = Counter(id(p) for m in model.modules() for p in m._parameters.values() if p is not None)
        self._tied = {module for module in self._names if any(held[id(p)] > 1 for p in module._parameters.values())}
        self._graph = pruning.DependencyGraph()
        made: list[Tensor] = []  # what layers make, the last first: not all of it leads to the outputs by gradients
        with self._blaming(), torch.enable_grad(), warnings.catch_warnings(), ExitStack() as stack:
            warnings.simplefilter("ignore")
            for layer in layers_of(model):
                hook = layer.register_forward_hook(lambda module, args, output: made.insert(0, output))
                stack.callback(hook.remove)
            self._graph.build_dependency(
                model,
                example_inputs=example,
                forward_fn=lambda model, _: model(*args, **kwargs),
                output_transform=lambda output: [t for t in (*leaves(output), *made) if t.grad_fn is not None],
                verbose=False,
            )

    def groups(self) -> Iterator[Group]:
        """The groups whose channels some layer reads: those of outputs of the model stay out."""
        for found in self._found:
            group = self._read(found)
            if group is not None and group.readers:
                yield group

    def ends(self) -> list[str]:
        """The layers that make no channels of these groups: their outputs stay. The last layers are among them."""
        made = {name for group in self.groups() for name in group.makers}
        return [name for layer in layers_of(self._model) if (name := self._names[layer]) not in made]

    def importances(self, of: Callable[[Any], Tensor | None]) -> dict[str, Tensor]:
        """What an importance of Torch-Pruning gives for each channel of its groups, by the weight of the group's root.

        Args:
            of: an instance of one of the classes in ``torch_pruning.importance``. It may ask for the gradients that
                the model's parameters hold.
        """
        found = {}
        for group in self._found:
            root = self._names.get(group[0].dep.target.module)
            scores = None if root is None else of(group)
            if scores is not None:
                found[f"{root}.weight"] = scores
        return found

    def remove(self, group: Group, channels: list[int]) -> None:
        """Take channels of a group out of the model."""
        layer = self._model.get_submodule(group.root)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pruner = self._graph.get_pruner_of_module(layer)
            self._graph.get_pruning_group(layer, pruner.prune_out_channels, sorted(channels)).prune()

    @cached_property
    def _found(self) -> list[Any]:
        with self._blaming(), torch.enable_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return list(self._all())

    @contextmanager
    def _blaming(self) -> Iterator[None]:
        try:
            yield
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # whatever Torch-Pruning meets in a model that it does not know
            reason = str(error).strip().partition("\n")[0]
            raise PxframeError(
                f"Torch-Pruning cannot read the model's graph ({type(error).__name__}: {reason}); "
                f"slim a part of it instead, such as model.backbone"
            ) from error

    def _all(self) -> Iterator[Any]:
        """Torch-Pruning's group of every layer's outputs, each group once; what it cannot follow is left out."""
        seen: set[nn.Module] = set()
        limits = (
            20 + 2 * len(self._graph.module2node),
            max(n for layer in layers_of(self._model) for n in (inputs_of(layer), outputs_of(layer))),
        )
        for layer in list(self._graph.module2node):
            if not isinstance(layer, LAYERS) or layer in seen or layer not in self._names:
                continue
            pruner = self._graph.get_pruner_of_module(layer)
            with _limited(*limits, self._graph.is_out_channel_pruning_fn) as visited:
                try:
                    found = self._graph.get_pruning_group(
                        layer, pruner.prune_out_channels, list(range(pruner.get_out_channels(layer)))
                    )
                except _Lost:
                    seen |= visited
                    self.lost.append(self._names[layer])
                    continue
            seen |= {dep.target.module for dep, _ in found if self._graph.is_out_channel_pruning_fn(dep.handler)}
            yield found

    def _read(self, found: Any) -> Group | None:
        root = self._names.get(found[0].dep.target.module)
        if root is None:
            return None
        group = Group(root, len(found[0].idxs))
        for item in found:
            module: Any = item.dep.target.module
            if isinstance(module, _MIXING):
                group.whole = f"{self._names[module]} ({type(module).__name__}) mixes its channels"
            if module in self._tied:
                group.whole = f"{self._names[module]} shares its weights with another layer"
            if not isinstance(module, LAYERS):
                continue
            name = self._names[module]
            grouped: int = getattr(module, "groups", 1)
            channels = inputs_of(module)
            if 1 < grouped < channels:
                group.whole = f"{name} is a convolution of {grouped} groups"
            indices: list[list[int]] = [[] for _ in range(group.size)]
            for index, channel in zip(item.idxs, item.root_idxs, strict=True):
                indices[channel].append(int(index))
            depthwise = grouped > 1 and grouped == channels
            if depthwise or self._graph.is_out_channel_pruning_fn(item.dep.handler):
                group.makers[name] = indices
            elif name in group.readers:
                group.whole = f"{name} reads them in two ways"
            else:
                group.readers[name] = indices
        return group


class _Lost(Exception):
    """Torch-Pruning asks about the same layers again and again, or about channels that no layer has."""


@contextmanager
def _limited(most: int, widest: int, is_made: Callable[[Any], bool]) -> Iterator[set[nn.Module]]:
    """Inside the block Torch-Pruning makes a group in so many steps, or :class:`_Lost` is raised.

    Where channels are reshaped in ways that it does not follow, as in torchvision's Swin, it would not end. Other
    networks need a third of a question for each of their nodes, and networks of a few layers up to twenty in all.

    Args:
        most: how many questions.
        widest: how many indices at once; no layer has more.
        is_made: of a handler of Torch-Pruning, whether it concerns what a layer makes.

    Yields:
        the layers that make the channels it has come to.
    """
    from torch_pruning.dependency import graph

    asked = 0
    seen: set[nn.Module] = set()

    class Limited(graph.Group):
        def has_pruning_op(self, dep: Any, idxs: Any) -> bool:
            nonlocal asked
            asked += 1
            if is_made(dep.handler):
                seen.add(dep.target.module)
            if asked > most or len(idxs) > widest:
                raise _Lost
            return bool(super().has_pruning_op(dep, idxs))

    with patch.object(graph, "Group", Limited):
        yield seen


def layers_of(model: nn.Module) -> list[Any]:
    """The linear and convolution layers."""
    return [module for module in model.modules() if isinstance(module, LAYERS)]


def weight_of(layer: Any) -> Tensor:
    """The weight of a layer, its outputs in the first dimension."""
    weight = layer.weight.detach()
    if not isinstance(layer, nn.modules.conv._ConvTransposeNd):
        return weight
    return weight.unflatten(0, (layer.groups, -1)).transpose(1, 2).flatten(0, 1)  # each group has outputs of its own


def inputs_of(layer: Any) -> int:
    """How many channels a layer reads."""
    return layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels


def outputs_of(layer: Any) -> int:
    """How many channels a layer makes."""
    return layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels


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
