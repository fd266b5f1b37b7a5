"""Batch norms that measure the statistics of their inputs, in a model that is in eval mode otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from pxframe.base.errors import PxframeError
from pxframe.running.undisturbed import evaluating


@contextmanager
def measuring(model: nn.Module, reached: dict[str, int]) -> Iterator[None]:
    """Eval mode inside the block, but batch norms measure: they normalise by their batch, and write into their buffers.

    What they write is the mean over all batches so far, each with the number of its values as its weight.

    Args:
        reached: how many values of each channel every batch norm has seen, by its path; kept from block to block.
    """
    norms = {
        path: module
        for path, module in model.named_modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None and module.running_var is not None
    }
    momenta = {path: module.momentum for path, module in norms.items()}

    def weigh(path: str) -> Any:
        def before(module: nn.Module, args: tuple[Any, ...]) -> None:
            values = args[0].numel() // max(args[0].shape[1], 1)
            if values < 2:
                raise PxframeError(f"{path} gets a single value per channel; give larger batches or images")
            reached[path] = reached.get(path, 0) + values
            module.momentum = values / reached[path]

        return before

    hooks = []
    with evaluating(model):
        try:
            for path, module in norms.items():
                module.training = True
                hooks.append(module.register_forward_pre_hook(weigh(path)))
            yield
        finally:
            for hook in hooks:
                hook.remove()
            for path, module in norms.items():
                module.momentum = momenta[path]
