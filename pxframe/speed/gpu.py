"""2:4 weights on a GPU: linear layers with torch's semi-structured tensors.

Of every four consecutive inputs of an output at most two weights are left (Mishra et al., "Accelerating Sparse Deep
Neural Networks", 2021). NVIDIA's tensor cores from compute capability 8.0 on multiply such weights in half the time, if
they are stored so. This file has not been run on a GPU; the tests rehearse it without one.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pxframe.base.errors import some
from pxframe.speed.sparse import Sparse, compared, for_inference, layers_of, read_by

_log = logging.getLogger(__name__)

#: The compute capability from which on there are such tensor cores.
_LEAST = (8, 0)
_DTYPES = (torch.float16, torch.bfloat16)


def sparse_on_gpu(model: nn.Module, example: Any) -> Sparse:
    """Store 2:4 weights of linear layers for the GPU's sparse tensor cores. ``model`` is not changed.

    A layer stays as it is, and is named, if its weight is not 2:4, if torch has no such kernel for the device, the
    dtype or the shape, or if the kernel's results are wrong. Convolutions stay: torch has no 2:4 kernels for them. If
    there are none at all for the device, one warning says so.

    Args:
        model: on the GPU, in float16 or bfloat16, its pruned weights zero, as ``ticket.apply(model)`` leaves them.
        example: inputs, as for :func:`pxframe.prune`, on the same device and in the same dtype.

    Returns:
        a network for inference only, in eval mode, and what became of which layer.

    Raises:
        PxframeError: the network does not run with such layers, or its outputs would differ from those of ``model``, in
            eval mode, by more than rounding explains.
    """
    found = for_inference(model)
    result, layers = Sparse(found, {}, {}), layers_of(found)
    devices = {layer.weight.device for layer in layers.values() if isinstance(layer, nn.Linear)}
    for lacking in filter(None, map(no_kernels, sorted(devices, key=str))):
        _log.warning("sparse_on_gpu: %s", lacking)
    reads = read_by(found, example)
    for name, layer in layers.items():
        reason = _why_not(layer) or ("" if name in reads else "the network does not run it as a layer")
        reason = reason or _convert(layer)
        if reason:
            result.dense[name] = reason
        else:
            result.sparse[name] = "2:4"
    _tell(result, layers)
    rounding = max((_rounding(p.dtype) for p in model.parameters() if p.is_floating_point()), default=0.0)
    result.error = compared(found, model, example, 4 * rounding)  # it may grow from layer to layer
    return result


def groups_over(weight: Tensor) -> int:
    """In how many groups of four consecutive inputs more than two weights are not zero; 0 for a 2:4 weight.

    Args:
        weight: ``[out, in]``, ``in`` a multiple of 4.
    """
    return int((weight.unflatten(1, (-1, 4)).count_nonzero(-1) > 2).sum())


def no_kernels(device: torch.device) -> str:
    """Why a device has no kernels for 2:4 weights; the empty string if it has."""
    least = ".".join(map(str, _LEAST))
    needs = f"2:4 weights need an NVIDIA GPU of compute capability {least} or more, every layer stays as it is"
    if device.type != "cuda":
        return f"the model is on {device}: {needs}"
    capability = torch.cuda.get_device_capability(device)
    return "" if capability >= _LEAST else f"{device} has compute capability {'.'.join(map(str, capability))}: {needs}"


def _why_not(layer: nn.Module) -> str:
    """Why a layer stays as it is; the empty string if it may be converted."""
    weight: Tensor = layer.weight  # type: ignore[assignment]
    if not isinstance(layer, nn.Linear):
        return "torch has no 2:4 kernels for convolutions"
    if type(layer) is not nn.Linear:  # it may do something else with its weight
        return f"a {type(layer).__name__}: only nn.Linear itself is converted"
    if weight.shape[1] % 4:
        return f"its {weight.shape[1]} inputs are no multiple of 4"
    if over := groups_over(weight):
        return f"its weight is not 2:4: {over:,} of {weight.numel() // 4:,} groups of four inputs keep more than two"
    if lacking := no_kernels(weight.device):
        return lacking
    if weight.dtype not in _DTYPES:  # torch takes float32 too, but its pattern there is 1:2
        return f"its weight is {weight.dtype}: model.half() or model.bfloat16() gives what the kernels take"
    return ""


def _convert(layer: Any) -> str:
    """Store a layer's weight in 2:4 form and try it on random inputs. If that fails the layer is as it was, and why."""
    kept = layer.weight
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, layer.in_features, generator=generator).to(kept)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the interface is a prototype
            wanted = layer(x).double()
            layer.weight = nn.Parameter(torch.sparse.to_sparse_semi_structured(kept.contiguous()), requires_grad=False)
            error = float((layer(x).double() - wanted).abs().max() / wanted.abs().max().clamp(min=1e-30))
    except torch.OutOfMemoryError:
        raise
    except Exception as reason:  # the library's own checks of shape and dtype, or a kernel that is missing
        layer.weight = kept
        return (str(reason).strip().splitlines() or [type(reason).__name__])[0]
    if error <= _rounding(kept.dtype):
        return ""
    layer.weight = kept
    return f"the 2:4 kernel gives other outputs on {kept.device}, by {error:.1e} of the largest"


def _rounding(dtype: torch.dtype) -> float:
    """How far two ways to compute a layer may be from each other, relative to the largest output."""
    return 4 * torch.finfo(dtype).eps


def _is_masked_convolution(layer: nn.Module) -> bool:
    """Whether a convolution is 2:4 in its input channels, so that somebody may expect it to be faster."""
    if isinstance(layer, nn.Linear) or layer.weight.shape[1] % 4:  # type: ignore[index]
        return False
    return not groups_over(layer.weight.movedim(1, -1).flatten(0, -2))  # type: ignore[operator]


def _tell(result: Sparse, layers: dict[str, nn.Module]) -> None:
    """Name, in one warning each, the linear layers that stay for a reason of their own, and 2:4 convolutions."""

    def stays(own: Callable[[nn.Module], bool]) -> list[str]:
        return [name for name in result.dense if own(layers[name])]

    linear = stays(lambda layer: isinstance(layer, nn.Linear) and not no_kernels(layer.weight.device))
    if linear:
        named = some([f"{name} ({result.dense[name]})" for name in linear])
        _log.warning("sparse_on_gpu: linear layers that stay dense: %s", named)
    if convolutions := stays(_is_masked_convolution):
        _log.warning(
            "sparse_on_gpu: convolutions stay as they are, since torch has no 2:4 kernels for them: %s",
            some(convolutions),
        )
