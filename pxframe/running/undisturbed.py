"""Leaving everything as it was found: the model, its flags, and the caller's random states."""

from __future__ import annotations

import copy
import random
import zlib
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

#: Exactly these types: a subclass may forbid what copying takes.
_CONTAINERS = (dict, OrderedDict, defaultdict, Counter, list, set, deque)
#: Most attributes of a module have one of these types; they are told apart first, since every forward pass asks.
_CONSTANTS = frozenset((bool, int, float, str, type(None), nn.Parameter, torch.Size, torch.dtype, torch.device))
_DEEP = (np.ndarray, random.Random, np.random.Generator, np.random.RandomState)


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Undo everything that ``model.forward`` does to the model inside the block, except writing into parameters.

    Inside the block every module works on copies of its buffers, of its other tensors, and of its lists, dicts, sets
    and generators. Afterwards each module has its own objects again, so counters, running averages, cached tensors,
    replaced submodules and flags are as they were. Parameters are not copied: give the model others, as
    :func:`torch.func.functional_call` does. Objects of other classes that a module refers to are not protected.
    """
    states = [(vars(module), dict(vars(module))) for module in model.modules()]
    copies: dict[int, Any] = {}
    try:
        for state, saved in states:
            state.update({key: _copied(value, copies) for key, value in saved.items()})
        yield
    finally:
        for state, saved in states:
            state.clear()
            state.update(saved)


def _copied(value: Any, copies: dict[int, Any]) -> Any:
    """A copy of ``value`` if ``forward`` could change it in place. What is shared stays shared: ``copies``, by id."""
    kind = type(value)
    if kind in _CONSTANTS or isinstance(value, nn.Module):
        return value
    if id(value) in copies:
        return copies[id(value)]
    result = value
    if kind in _CONTAINERS:
        result = copies[id(value)] = value.copy()  # before its elements: it may contain itself
        if isinstance(value, dict):
            for key, element in value.items():
                result[key] = _copied(element, copies)
        elif not isinstance(value, set):
            for index, element in enumerate(value):
                result[index] = _copied(element, copies)
    elif isinstance(value, Tensor):
        result = value if isinstance(value, nn.Parameter) else value.clone()
    elif kind is tuple:
        result = tuple(_copied(element, copies) for element in value)
    elif isinstance(value, torch.Generator):
        result = value.clone_state()
    elif isinstance(value, _DEEP):
        result = copy.deepcopy(value)
    copies[id(value)] = result
    return result


def copied(model: nn.Module) -> nn.Module:
    """A copy of a model, also of one that holds tensors with a gradient history, which could not be copied.

    An activation that it has kept is such a tensor, or the weight that :func:`torch.nn.utils.weight_norm` computes.
    """
    with torch.no_grad(), undisturbed(model):
        return copy.deepcopy(model)


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
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed every GPU, and leave it so
            if devices:
                with torch.cuda.device(device):
                    torch.cuda.manual_seed(seed)
            random.seed(seed)
            np.random.seed(seed % 2**32)
            yield stream(seed, "seeded")
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
