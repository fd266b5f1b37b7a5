"""How long networks take, measured in turn, so that what else the machine does concerns all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from pxframe.running.inputs import arguments, leaves

#: One measurement takes at least so many seconds; a quick network is run several times in it.
_LEAST = 0.01


def take_times(networks: Mapping[str, nn.Module], example: Any, rounds: int = 30) -> dict[str, tuple[float, ...]]:
    """Seconds of a forward pass on ``example``, without gradients, by network: first quartile, median, third quartile.

    In every round each network is measured once, in an order that turns from round to round.

    Args:
        networks: in eval mode, on the device of ``example``.
        rounds: how many measurements each network gets.
    """
    args, kwargs = arguments(example)
    device = next((tensor.device for tensor in leaves(example)), torch.device("cpu"))
    names = list(networks)
    found: dict[str, list[float]] = {name: [] for name in names}
    with torch.no_grad():
        runs = {name: (lambda model=model: model(*args, **kwargs)) for name, model in networks.items()}
        times = {name: _times(run, device) for name, run in runs.items()}
        for number in range(rounds):
            turn = number % len(names)
            for name in names[turn:] + names[:turn]:
                found[name].append(_seconds(runs[name], times[name], device) / times[name])
    return {name: tuple(float(q) for q in np.quantile(values, (0.25, 0.5, 0.75))) for name, values in found.items()}


def _times(run: Callable[[], Any], device: torch.device) -> int:
    """How often to run it in one measurement. It has run before, so that nothing is set up while it is measured."""
    run()
    times = 1
    while (taken := _seconds(run, times, device)) < _LEAST:
        times = max(times + 1, int(times * min(10.0, 1.2 * _LEAST / max(taken, 1e-9))))
    return times


def _seconds(run: Callable[[], Any], times: int, device: torch.device) -> float:
    _wait(device)
    start = time.perf_counter()
    for _ in range(times):
        run()
    _wait(device)
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
