"""Watches one forward pass for the parameters, or kernels computed from them, that the data are multiplied by."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils import _pytree as pytree

from pxframe.engine.rules.shapes import MOVES, SAME
from pxframe.engine.rules.table import PRODUCTS
from pxframe.engine.tracing.record import PlainMode
from pxframe.running.calls import explaining_forward
from pxframe.running.inputs import arguments, few, leaves, mapped
from pxframe.running.undisturbed import evaluating, undisturbed

#: What the backends make of a recurrent layer: one operation that multiplies by all of its weights.
_RECURRENT = frozenset(("mkldnn_rnn_layer", "_cudnn_rnn", "miopen_rnn", "_lstm_mps"))
#: Other names under which products reach a dispatch mode.
_PRODUCTS = frozenset((*PRODUCTS, "_convolution", *_RECURRENT))
#: Operations whose result still holds every number of each parameter.
_MOVES = MOVES | SAME | {"cat", "stack"}
#: Enough samples that nothing is squeezed away; few enough to keep all activations.
_SAMPLES = 2

#: By parameter, how many of its numbers a tensor was computed from: all of them, also in a slice of it.
Sizes = dict[str, int]


def multiplied_parameters(model: nn.Module, parameters: Iterable[str], example: Any) -> set[str]:
    """Names of those ``parameters`` that the data are multiplied by in a forward pass on the first of ``example``.

    A parameter counts when a product takes it, or a kernel with as many elements that is computed from it without data
    and without another product, together with something that depends on the input.

    Raises:
        PxframeError: the forward pass fails.
    """
    inputs = mapped(torch.clone, few(example, _SAMPLES))
    copies = {name: p.detach().clone() for name, p in model.named_parameters()}  # forward may write into them
    watch = _Watch({name: copies[name] for name in parameters}, leaves(inputs))
    with undisturbed(model), evaluating(model), torch.no_grad(), explaining_forward(inputs), watch:
        args, kwargs = arguments(inputs)
        functional_call(model, copies, args, kwargs)
    return watch.found


class _Watch(PlainMode):
    """Follows through a forward pass what depends on the input, and what was computed from parameters alone."""

    def __init__(self, parameters: Mapping[str, Tensor], inputs: list[Tensor]) -> None:
        super().__init__()
        self.found: set[str] = set()
        self._parameters = parameters
        self._intact = {_place(p): name for name, p in parameters.items()}
        self._sizes: dict[int, Sizes] = {}
        self._from_data = {tensor.untyped_storage()._cdata for tensor in inputs}
        self._alive = list(inputs)  # so that no id or storage is used again during the pass

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        read = [t for t in pytree.tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        results = [t for t in pytree.tree_leaves(out) if isinstance(t, Tensor)]
        from_data = any(self._depends(tensor) for tensor in read)
        sizes = [self._sizes_of(tensor) for tensor in read]
        if name in _PRODUCTS:
            if from_data:
                for tensor, held in zip(read, sizes, strict=True):
                    if tensor.ndim >= 2:
                        self.found.update(n for n, size in held.items() if size == self._parameters[n].numel())
            sizes = []  # a product of two weights has the zeros of neither
        self._alive += results
        for result in results:
            if from_data:
                self._from_data.add(result.untyped_storage()._cdata)
            else:
                held = {n: size for part in sizes for n, size in part.items()}
                self._sizes[id(result)] = held if name in _MOVES else dict.fromkeys(held, result.numel())
        return out

    def _depends(self, tensor: Tensor) -> bool:
        return tensor.untyped_storage()._cdata in self._from_data

    def _sizes_of(self, tensor: Tensor) -> Sizes:
        if self._depends(tensor):
            return {}
        if id(tensor) in self._sizes:
            return self._sizes[id(tensor)]
        name = self._intact.get(_place(tensor))
        return {} if name is None else {name: tensor.numel()}


def _place(tensor: Tensor) -> tuple[int, int]:
    """Where a tensor lies: two parameters may share a storage, and a view of all of one is still that parameter."""
    return tensor.data_ptr(), tensor.numel()
