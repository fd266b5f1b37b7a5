"""What can be counted: parameters, multiply-accumulates, bytes on disk, bytes in memory."""

from __future__ import annotations

import weakref
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from pxframe.engine.tracing.unfused import math_attention
from pxframe.running.inputs import arguments, leaves, samples


@dataclass(frozen=True)
class Cost:
    """What a network costs, whatever machine it runs on.

    Attributes:
        parameters: all of them, zeros too.
        nonzero: those that are not zero.
        macs: multiply-accumulates of one sample, of matrix products and convolutions, zeros multiplied too, but for
            weights in CSR form.
        disk: bytes of the state dict as a safetensors file.
        compressed: bytes of this file when it is compressed by zlib.
        memory: the most bytes that parameters, buffers and intermediate values take together in a forward pass of the
            example, without what a single operation needs for itself.
    """

    parameters: int
    nonzero: int
    macs: int
    disk: int
    compressed: int
    memory: int


def count_cost(model: nn.Module, example: Any) -> Cost:
    """Count what a model in eval mode costs on the inputs ``example``."""
    args, kwargs = arguments(example)
    parameters = list(model.parameters())
    state = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in model.state_dict().items()}
    file = save(state)
    own = sum(tensor.nbytes for tensor in (*parameters, *model.buffers()))
    return Cost(
        parameters=sum(p.numel() for p in parameters),
        nonzero=sum(int(p.count_nonzero()) for p in parameters),
        macs=count_macs(model, example),
        disk=len(file),
        compressed=len(zlib.compress(file)),
        memory=own + peak(lambda: model(*args, **kwargs)),
    )


def count_macs(model: nn.Module, example: Any) -> int:
    """Multiply-accumulates of one sample in matrix products and convolutions, zeros multiplied too.

    Those of attention are among them: it runs as plain products, since torch's counter knows none of the CPU's fused
    kernels. A product with a matrix in CSR form counts those of the numbers that the matrix stores.
    """
    from torch.utils.flop_counter import FlopCounterMode  # takes a quarter of a second to import

    args, kwargs = arguments(example)
    aten = torch.ops.aten
    products = dict.fromkeys((aten.mm, aten.addmm, aten.mv, aten.addmv), _product_flops)
    with torch.no_grad(), math_attention(), FlopCounterMode(display=False, custom_mapping=products) as counter:
        model(*args, **kwargs)
    return counter.get_total_flops() // 2 // samples(example)


def _product_flops(*args: Any, out_val: Any = None, **kwargs: Any) -> int:
    """Operations of a product of the last two, as in ``addmm(bias, a, b)``.

    torch counts a sparse matrix as if it were full, and no product of a matrix and a vector.
    """
    left, right = args[-2:]
    numbers = left.values().numel() if left.layout is torch.sparse_csr else left.numel()
    return 2 * numbers * right.shape[1:].numel()


_product_flops._get_raw = True  # type: ignore[attr-defined]  # the counter then gives tensors, not their shapes


def peak(function: Callable[[], Any]) -> int:
    """The most bytes that the tensors made by a function take at a time, without gradients."""
    with torch.no_grad(), _Live() as live:
        function()
    return live.most


class _Live(TorchDispatchMode):
    """Adds up the memory of tensors that operations make, until nothing refers to it any more."""

    def __init__(self) -> None:
        super().__init__()
        self.most = 0
        self._now = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {tensor.untyped_storage().data_ptr() for tensor in _stored([args, kwargs or {}])}
        result = func(*args, **(kwargs or {}))
        for tensor in _stored(result):
            self._note(tensor, given)
        return result

    def _note(self, tensor: Tensor, given: set[int]) -> None:
        storage = tensor.untyped_storage()
        at, size = storage.data_ptr(), storage.nbytes()
        if at in given or at in self._known or not size:
            return
        self._known.add(at)
        self._now += size
        self.most = max(self.most, self._now)
        weakref.finalize(storage, self._forget, at, size)

    def _forget(self, at: int, size: int) -> None:
        self._known.discard(at)
        self._now -= size


def _stored(value: Any) -> list[Tensor]:
    """The tensors in ``value`` that have memory of their own; one in CSR form is made of others that have it."""
    return [tensor for tensor in leaves(value) if tensor.layout is torch.strided]
