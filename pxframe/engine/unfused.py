"""Layers that torch runs as one fused kernel, as plain operations: for second derivatives and for traces."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

_RECURRENT = frozenset(("lstm", "gru", "rnn_tanh", "rnn_relu"))


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
    with math_attention(), _WrittenOut():
        yield


class _WrittenOut(TorchFunctionMode):
    """Activations whose first derivative has none in torch, written out."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if getattr(func, "__name__", "") == "hardsigmoid":
            return F.relu6(args[0] + 3) / 6
        return func(*args, **(kwargs or {}))


class UnrolledRecurrence(TorchFunctionMode):
    """Recurrent layers step by step inside the block, by torch's own decompositions."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if getattr(func, "__name__", "") not in _RECURRENT:
            return func(*args, **(kwargs or {}))
        from torch._dispatch.python import enable_python_dispatcher  # takes long to import, and few models need it

        with warnings.catch_warnings(), enable_python_dispatcher():
            warnings.simplefilter("ignore")  # the next line warns of settings for GPUs of another maker
            with torch.backends.mkldnn.flags(enabled=False):
                return func(*args, **(kwargs or {}))
