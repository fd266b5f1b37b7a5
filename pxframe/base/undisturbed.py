"""Leaving everything as it was found: the model's flags, and the caller's random states."""

from __future__ import annotations

import random
import zlib
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


def derived_seed(seed: int, consumer: str) -> int:
    """A seed for one ``consumer`` of random numbers, independent of ``seed`` itself and of every other consumer's.

    Two generators that start from the same seed give the same numbers. If a network and its random mask were drawn
    so, the mask would keep the largest weights.
    """
    sequence = np.random.SeedSequence([seed % 2**64, zlib.crc32(consumer.encode())])
    return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))


def stream(seed: int, consumer: str) -> torch.Generator:
    """A CPU generator for one ``consumer``, seeded by :func:`derived_seed`."""
    return torch.Generator().manual_seed(derived_seed(seed, consumer))


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[torch.Generator]:
    """Seed Python's, NumPy's and torch's generators inside the block, and restore their states after it.

    Gives a CPU generator with a stream of its own, for draws that must not depend on the device.
    """
    python, numpy = random.getstate(), np.random.get_state()
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        try:
            torch.manual_seed(seed)
            random.seed(seed)
            np.random.seed(seed % 2**32)
            yield stream(seed, "seeded")
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
