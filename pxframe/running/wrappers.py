"""Wrappers around a model or a part of it, and the names that parameters have without them."""

from __future__ import annotations

from torch import nn

from pxframe.base.errors import PxframeError

# What DataParallel and DistributedDataParallel, and torch.compile, call the module that they hold.
_HELD_AS = ("module", "_orig_mod")


def unwrapped(model: nn.Module) -> nn.Module:
    """The module inside ``DataParallel``, ``DistributedDataParallel`` and ``torch.compile``, however nested.

    Raises:
        PxframeError: it is no module.
    """
    if not isinstance(model, nn.Module):
        raise PxframeError(
            f"the model must be a torch.nn.Module, got {type(model).__name__}; pxframe.build_backbone makes one"
        )
    while True:
        if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            model = model.module
        elif "_orig_mod" in model._modules:  # asked this way, since torch._dynamo takes seconds to import
            model = model._modules["_orig_mod"]  # type: ignore[assignment]
        else:
            return model


def plain_name(name: str) -> str:
    """The name of a parameter, or a prefix of names, without its wrappers: ``module.conv.weight`` is ``conv.weight``.

    Wrappers are left out wherever they are: ``backbone._orig_mod.conv.weight`` is ``backbone.conv.weight``.
    """
    *modules, last = name.split(".")
    return ".".join([part for part in modules if part not in _HELD_AS] + [last])
