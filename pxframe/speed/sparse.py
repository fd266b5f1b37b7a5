"""Networks some of whose layers were replaced by sparse ones: what became of which layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from pxframe.base.errors import PxframeError
from pxframe.running.inputs import arguments
from pxframe.running.outputs import difference, outputs
from pxframe.running.undisturbed import copied, evaluating, undisturbed

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass
class Sparse:
    """A network with sparse layers.

    Attributes:
        model: for inference only, in eval mode, without gradients; otherwise like the model that it was made from.
        sparse: the layers that are sparse now, by name, and why.
        dense: the other linear layers and convolutions, and why they stay as they are.
        error: the largest difference between its outputs and those of the model that it was made of, relative to the
            largest output.
        seconds: where it was measured, the time of each layer: as it was, and sparse.
    """

    model: nn.Module
    sparse: dict[str, str]
    dense: dict[str, str]
    error: float = 0.0
    seconds: dict[str, tuple[float, float]] = field(default_factory=dict)


def for_inference(model: nn.Module) -> nn.Module:
    """A copy in eval mode, without gradients."""
    return copied(model).eval().requires_grad_(False)


def layers_of(model: nn.Module) -> dict[str, nn.Module]:
    """The linear layers and convolutions of a model, by name."""
    return {n: m for n, m in model.named_modules() if isinstance(m, (nn.Linear, *_CONVOLUTIONS))}


def read_by(model: nn.Module, example: Any) -> dict[str, Tensor]:
    """What each linear layer and convolution that runs is given first: a meta tensor, without numbers.

    A layer whose weight the network reads without running the layer is not among them.
    """
    found: dict[str, Tensor] = {}

    def note(name: str) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            given = args[0] if args else kwargs["input"]
            found.setdefault(name, given.detach().to("meta"))

        return hook

    args, kwargs = arguments(example)
    with ExitStack() as stack, torch.no_grad(), undisturbed(model):
        for name, layer in layers_of(model).items():
            stack.callback(layer.register_forward_pre_hook(note(name), with_kwargs=True).remove)
        model(*args, **kwargs)
    return found


def replaced(model: nn.Module, layers: Mapping[nn.Module, nn.Module]) -> nn.Module:
    """The model with other layers, in place, under each name of a layer; another model if it is a layer itself."""
    for module in list(model.modules()):
        for key, child in module._modules.items():
            if child is not None and child in layers:
                module._modules[key] = layers[child]
    return layers.get(model, model)


def compared(model: nn.Module, before: nn.Module, example: Any, tolerance: float) -> float:
    """How far the outputs are from those before, in eval mode, relative to the largest of them.

    Raises:
        PxframeError: they differ by more than ``tolerance``, or the network does not run with sparse layers.
    """
    with evaluating(before):
        wanted = outputs(before, example)
    try:
        error = difference(model, [example], [wanted])
    except torch.OutOfMemoryError:
        raise
    except Exception as reason:  # the network's own code may not know the layers that it has now
        line = (str(reason).strip().splitlines() or ["no reason given"])[0]
        raise PxframeError(
            f"the network does not run with sparse layers ({type(reason).__name__}: {line}); nothing was changed"
        ) from reason
    if not error <= tolerance:
        raise PxframeError(
            f"with sparse layers the network's outputs differ by {error:.1e} of the largest; nothing was changed"
        )
    return error
