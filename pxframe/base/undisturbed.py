"""Leaving everything as it was found: the model's flags, and the caller's random states."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode inside the block; every module's own flag is restored after it.

    Flags are set one by one: ``model.eval()`` may be overridden and do more (mmseg's ResNets freeze stages in it).
    """
    modules = list(model.modules())
    flags = [m.training for m in modules]
    try:
        for module in modules:
            module.training = False
        yield
    finally:
        for module, flag in zip(modules, flags, strict=True):
            module.training = flag


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[torch.Generator]:
    """Python's, NumPy's and torch's generators start from ``seed`` inside the block and are put back after it.

    Gives a CPU generator of the same seed for draws that must not depend on the device.
    """
    python, numpy = random.getstate(), np.random.get_state()
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        try:
            torch.manual_seed(seed)
            random.seed(seed)
            np.random.seed(seed % 2**32)
            yield torch.Generator().manual_seed(seed)
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
