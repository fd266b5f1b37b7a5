"""Half-precision networks are slimmed in float32: their rounding is larger than the differences that are allowed.

Afterwards the small network is given back what was changed for that: dtypes, modes, and what is trained.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pxframe.running.inputs import mapped

_HALF = (torch.float16, torch.bfloat16)


def widen(model: nn.Module, example: Any) -> Any:
    """Make every half-precision tensor of ``model`` float32, in place.

    Returns:
        ``example``, in float32 too if there are any.
    """
    half = [tensor for tensor in _tensors(model).values() if tensor.dtype in _HALF]
    for tensor in half:
        tensor.data = tensor.data.float()
    return mapped(lambda tensor: tensor.float() if tensor.dtype in _HALF else tensor, example) if half else example


def restore(small: nn.Module, model: nn.Module) -> None:
    """Give ``small`` the modes and dtypes of ``model``, which it was made from, and train the same tensors.

    A bias that a layer did not have is as its weight is.
    """
    before, modules = _tensors(model), dict(model.named_modules())
    for name, module in small.named_modules():
        module.training = modules[name].training
    for name, tensor in _tensors(small).items():
        like = before.get(name, before.get(f"{name.removesuffix('bias')}weight"))
        if like is not None:
            tensor.data = tensor.data.to(like.dtype)
            tensor.requires_grad_(like.requires_grad)


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}
