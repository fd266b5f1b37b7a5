"""Which parameters can be pruned: weights of convolutions and linear maps, found by parameter."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from pxframe.base.errors import PxframeError, near, some
from pxframe.base.undisturbed import evaluating

#: Layer classes whose weights are known to be linear maps, with the names of those weights.
_MAPS: tuple[tuple[type, tuple[str, ...]], ...] = (
    (nn.modules.conv._ConvNd, ("weight",)),
    (nn.Linear, ("weight",)),
    (nn.MultiheadAttention, ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")),
)
_NOT_MAPS = (nn.Embedding, nn.EmbeddingBag, nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)
_PRODUCTS = ("convolution", "mm", "addmm", "bmm", "baddbmm", "linear", "matmul", "_convolution")


def prunable(model: nn.Module, example: Tensor | None = None, exclude: Iterable[str] = ()) -> list[str]:
    """Names of the prunable parameters, in the model's order.

    A parameter with two or more dimensions is prunable when it is a convolution's or linear map's weight. For the
    layer classes of torch that is known; a bare parameter of another module is watched in one forward pass on
    ``example``: it counts when a convolution or matrix product takes it (a projection does, a position embedding not).

    Args:
        exclude: names, or patterns with wildcards (``"head.*"``), to leave out.

    Raises:
        PxframeError: a pattern that matches nothing, a bare parameter and no example, or nothing left to prune.
    """
    known, unclear = [], {}
    for path, module in model.named_modules():
        for leaf, parameter in module.named_parameters(recurse=False):
            name = f"{path}.{leaf}" if path else leaf
            if parameter.ndim < 2 or isinstance(module, _NOT_MAPS):
                continue
            if any(isinstance(module, cls) and leaf in leaves for cls, leaves in _MAPS):
                known.append(name)
            else:
                unclear[name] = parameter
    exclude = tuple(exclude)
    unclear = {n: p for n, p in unclear.items() if not any(fnmatchcase(n, pattern) for pattern in exclude)}
    if unclear and example is None:
        raise PxframeError(
            f"cannot tell without data whether {some(unclear)} is the weight of a linear map; "
            f"pass batches (one is enough) or exclude it"
        )
    used = _multiplied(model, unclear, example) if example is not None and unclear else set()
    order = [name for name, _ in model.named_parameters()]
    names = [name for name in order if name in known or name in used]
    for pattern in exclude:
        if not any(fnmatchcase(name, pattern) for name in order):
            raise PxframeError(f"exclude: no parameter is called {pattern!r}{near(pattern, names)}")
    names = [name for name in names if not any(fnmatchcase(name, pattern) for pattern in exclude)]
    if not names:
        raise PxframeError("the model has no prunable weight (of a convolution or linear map) left to prune")
    return names


def _multiplied(model: nn.Module, parameters: dict[str, nn.Parameter], example: Tensor) -> set[str]:
    """Names of those ``parameters`` whose storage a convolution or matrix product reads in a forward pass."""
    storages = {p.untyped_storage().data_ptr(): name for name, p in parameters.items()}
    found: set[str] = set()

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func.overloadpacket.__name__ in _PRODUCTS:
                for argument in args:
                    if isinstance(argument, Tensor) and argument.ndim >= 2:
                        name = storages.get(argument.untyped_storage().data_ptr())
                        if name:
                            found.add(name)
            return func(*args, **(kwargs or {}))

    with evaluating(model), torch.no_grad(), Watch():
        model(example.clone())
    return found
