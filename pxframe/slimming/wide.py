"""Half-precision networks are slimmed in float32: their rounding is larger than the differences that are allowed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pxframe.running.inputs import mapped

_HALF = (torch.float16, torch.bfloat16)


def widen(model: nn.Module, example: Any) -> tuple[dict[str, torch.dtype], Any]:
    """Make every half-precision tensor of ``model`` float32, in place.

    Returns:
        the dtypes that such tensors had, by name; and ``example``, in float32 too if there are any.
    """
    dtypes = {name: tensor.dtype for name, tensor in _tensors(model) if tensor.dtype in _HALF}
    for name, tensor in _tensors(model):
        if name in dtypes:
            tensor.data = tensor.data.float()
    if dtypes:
        example = mapped(lambda tensor: tensor.float() if tensor.dtype in _HALF else tensor, example)
    return dtypes, example


def narrow(model: nn.Module, dtypes: Mapping[str, torch.dtype]) -> None:
    """Give the tensors of ``model`` the dtypes that :func:`widen` found; new biases get those of the weights."""
    for name, tensor in _tensors(model):
        dtype = dtypes.get(name, dtypes.get(f"{name.removesuffix('bias')}weight"))
        if dtype is not None:
            tensor.data = tensor.data.to(dtype)


def _tensors(model: nn.Module) -> list[tuple[str, Tensor]]:
    return [*model.named_parameters(), *model.named_buffers()]
