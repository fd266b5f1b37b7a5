"""Layers that torch runs as one fused kernel, as plain operations: for second derivatives and for traces."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode


@contextmanager
def math_attention() -> Iterator[None]:
    """Attention as matrix products and a softmax inside the block.

    The fused kernels have no second derivative, and a trace shows them as a single operation.
    """
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


@contextmanager
def twice_differentiable() -> Iterator[None]:
    """Second derivatives of all that torch has a first derivative of, inside the block."""
    with math_attention(), _Instead({"hardsigmoid": _hardsigmoid}):
        yield


def plain_layers() -> TorchFunctionMode:
    """Recurrent layers step by step inside the block, by torch's own decompositions; gated linear units as products."""
    return _Instead({**dict.fromkeys(("lstm", "gru", "rnn_tanh", "rnn_relu"), _unrolled), "glu": _gated})


class _Instead(TorchFunctionMode):
    """Inside the block, calls a stand-in for each function of torch that has one.

    Args:
        stand_ins: function's name -> ``stand_in(function, *args, **kwargs)``.
    """

    def __init__(self, stand_ins: Mapping[str, Callable[..., Any]]) -> None:
        super().__init__()
        self._stand_ins = stand_ins

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        stand_in = self._stand_ins.get(getattr(func, "__name__", ""))
        return func(*args, **(kwargs or {})) if stand_in is None else stand_in(func, *args, **(kwargs or {}))


def _hardsigmoid(_: Any, x: Tensor, inplace: bool = False) -> Tensor:
    return F.relu6(x + 3) / 6


def _gated(_: Any, x: Tensor, dim: int = -1) -> Tensor:
    value, gate = x.chunk(2, dim)
    return value * gate.sigmoid()


def _unrolled(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    from torch._dispatch.python import enable_python_dispatcher  # takes long to import, and few models need it

    with warnings.catch_warnings(), enable_python_dispatcher():
        warnings.simplefilter("ignore")  # the next line warns of settings for GPUs of another maker
        with torch.backends.mkldnn.flags(enabled=False):
            return function(*args, **kwargs)
