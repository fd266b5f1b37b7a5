"""Which channels carry nothing: whatever the input is, a layer reads the same value there.

A channel may look so on some images because a rectifier happens to be closed. Therefore a second network is run, in
which no gate is closed: every parameter and every input is positive, and zeros stay zeros. What is constant there is
cut off from the inputs by zeros alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from pxframe.running.inputs import arguments, mapped
from pxframe.running.undisturbed import copied
from pxframe.slimming.groups import LAYERS, inputs_of

#: Biases and inputs of the opened network: so small that no activation ends its linear part, at any depth.
_SMALL = 1e-6


def opened(model: nn.Module) -> nn.Module:
    """A copy with positive parameters, float64, zeros where the model has zeros.

    The weights of an output sum to one, so that values neither grow nor vanish. A model may normalise its inputs first,
    so that they are negative and large again. Therefore layers that come before any parameter, which values with no
    gradient show, read small positive numbers instead; zeros stay zeros. The model must be run with gradients enabled.
    """
    generator = torch.Generator().manual_seed(0)
    result = copied(model).double()
    layers = {f"{n}.weight" if n else "weight" for n, m in result.named_modules() if isinstance(m, LAYERS)}
    with torch.no_grad():
        for name, parameter in result.named_parameters():
            values = _drawn(parameter, generator)
            if name in layers:
                sums = values.flatten(1).sum(1).view(-1, *[1] * (values.ndim - 1))
                values = values / torch.where(sums == 0, 1.0, sums)
            parameter.copy_(values * _SMALL if name.endswith("bias") else values)
        for module in result.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
                module.running_mean.copy_(-_SMALL * _drawn(module.running_mean, generator))
                module.running_var.fill_(1.0)  # type: ignore[union-attr]

    def begin(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        values = _read(args, kwargs)
        if not values.requires_grad:
            values = _SMALL * _drawn(values, generator)
        values = values.detach().requires_grad_()  # detached, so that no graph of the whole network is kept
        return ((values, *args[1:]), kwargs) if args else ((), {**kwargs, next(iter(kwargs)): values})

    for name in layers:
        result.get_submodule(name.rpartition(".")[0]).register_forward_pre_hook(begin, with_kwargs=True)
    return result


def positive(example: Any, seed: int) -> Any:
    """Small positive inputs of the shapes of ``example``, float64; integers as they are."""
    generator = torch.Generator().manual_seed(seed)
    return mapped(lambda x: _SMALL * _drawn(torch.ones_like(x), generator) if x.is_floating_point() else x, example)


def _drawn(values: Tensor, generator: torch.Generator) -> Tensor:
    numbers = torch.rand(values.shape, generator=generator, dtype=torch.float64).to(values.device)
    return torch.where(values == 0, 0.0, 0.5 + numbers)


def constants(model: nn.Module, names: Sequence[str], batches: Sequence[Any]) -> dict[str, Tensor]:
    """By layer, for each input channel the value that it always has, NaN if it has none.

    Args:
        model: in eval mode.
        names: linear and convolution layers.
        batches: inputs of the model.

    Returns:
        tensors ``[channels]``, float64; all NaN for a layer that was not run, or has read nothing.
    """
    with torch.no_grad():
        actual = _values_read(model, names, batches, 1e-6)
    # Averages over many channels vary less and less with the depth: by 1e-11 in some networks.
    with torch.enable_grad():
        of_open = _values_read(opened(model), names, [positive(batches[0], seed) for seed in (0, 1)], 1e-13)
    return {name: _constant(value, of_open[name]) for name, value in actual.items()}


def _constant(actual: Tensor, of_open: Tensor) -> Tensor:
    """Values that are constant in both networks, else NaN; all NaN if the opened one is closed where the other is not.

    Some activations are closed for small values, as ``nn.Threshold`` and ``nn.Softshrink`` are.
    """
    if (actual.isnan() & ~of_open.isnan()).any():
        return torch.full_like(actual, torch.nan)
    return torch.where(of_open.isnan(), torch.nan, actual)


def _values_read(model: nn.Module, names: Sequence[str], batches: Sequence[Any], tolerance: float) -> dict[str, Tensor]:
    """What is read at each input channel, if it is one value for all batches and positions; else NaN."""
    ends: dict[str, tuple[Tensor, Tensor]] = {}

    def note(name: str) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            values = _read(args, kwargs).detach()
            if not values.numel():  # of no boxes, for example
                return
            low, high = _ends(values, module)
            if name in ends:
                low, high = torch.minimum(ends[name][0], low), torch.maximum(ends[name][1], high)
            ends[name] = low, high

        return hook

    with ExitStack() as stack:
        for name in names:
            stack.callback(model.get_submodule(name).register_forward_pre_hook(note(name), with_kwargs=True).remove)
        for batch in batches:
            args, kwargs = arguments(batch)
            model(*args, **kwargs)
    found = {}
    for name in names:
        low, high = ends.get(name, (torch.zeros(1), torch.full((inputs_of(model.get_submodule(name)),), torch.nan)))
        same = high - low <= tolerance * torch.maximum(low.abs(), high.abs())
        found[name] = torch.where(same, high, torch.nan)
    return found


def _read(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """What a layer is given first, by its place or by its name."""
    return args[0] if args else next(iter(kwargs.values()))


def _ends(values: Tensor, module: Any) -> tuple[Tensor, Tensor]:
    """The least and the largest value of each input channel, float64."""
    channel = -1 if isinstance(module, nn.Linear) else 1 - module.weight.ndim  # also of an image without a batch
    rows = values.movedim(channel, 0).flatten(1).double()
    return rows.amin(1), rows.amax(1)
