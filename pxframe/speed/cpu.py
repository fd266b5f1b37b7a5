"""Sparse layers on a CPU, each where it is the faster one on this machine."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from pxframe.base.errors import PxframeError
from pxframe.running.outputs import TOLERANCE
from pxframe.speed.clock import take_times
from pxframe.speed.csr import csr_layer, missing, why_not
from pxframe.speed.sparse import Sparse, compared, for_inference, layers_of, read_by, replaced

_log = logging.getLogger(__name__)

#: Seconds that networks take on an example, by name: first quartile, median, third quartile.
Timing: TypeAlias = Callable[[Mapping[str, nn.Module], Any], Mapping[str, tuple[float, ...]]]
#: Seven measurements of each.
timed: Timing = functools.partial(take_times, rounds=7)


def sparse_on_cpu(model: nn.Module, example: Any, timing: Timing = timed) -> Sparse:
    """Replace linear layers and 1x1 convolutions by sparse ones where these are faster here. ``model`` is not changed.

    Each layer is timed as it is and in CSR form, in turn, on inputs of the sizes that it reads when the model runs on
    ``example``, with as many threads as torch has now. The faster one by the median is used. Another batch size,
    number of threads or machine may ask for another choice. Layers with groups, larger kernels or padding stay.

    Args:
        model: on the CPU, its pruned weights zero, as ``ticket.apply(model)`` leaves them; also a slimmed one.
        example: inputs, as for :func:`pxframe.prune`, as many at once as will be used.
        timing: takes the times of modules by name, in seconds, as :func:`pxframe.speed.clock.take_times` does.

    Returns:
        a network for inference only, in eval mode, and what was chosen for which layer.

    Raises:
        PxframeError: the model is not on the CPU, it does not run with such layers, or its outputs would differ from
            those of ``model``, in eval mode, by more than 1e-5 of the largest.
    """
    if elsewhere := {str(p.device) for p in model.parameters() if p.device.type != "cpu"}:
        raise PxframeError(f"sparse_on_cpu: the model is on {sorted(elsewhere)[0]}; model.cpu() brings it to the CPU")
    found = for_inference(model)
    layers = layers_of(found)
    if lacking := missing():
        _log.warning("sparse_on_cpu: %s", lacking)
        return Sparse(found, {}, dict.fromkeys(layers, lacking))
    reads = read_by(found, example)
    result = Sparse(found, {}, {})
    chosen: dict[nn.Module, nn.Module] = {}
    for name, layer in layers.items():
        reason = why_not(layer) or ("" if name in reads else "the network does not run it as a layer")
        if reason:
            result.dense[name] = reason
            continue
        csr = csr_layer(layer)
        seconds = medians(timing, {"dense": layer, "csr": csr}, drawn(reads[name]))
        result.seconds[name] = seconds["dense"], seconds["csr"]
        if seconds["csr"] < seconds["dense"]:
            chosen[layer] = csr
        taken = f"{1e3 * seconds['csr']:.3g} ms in CSR form, {1e3 * seconds['dense']:.3g} ms as it is"
        (result.sparse if layer in chosen else result.dense)[name] = taken
    result.model = replaced(found, chosen).eval()
    result.error = compared(result.model, model, example, TOLERANCE)
    return result


def drawn(like: Tensor) -> Tensor:
    """Normal numbers in the shape and order in memory of a meta tensor. The user's random state stays as it is."""
    generator = torch.Generator().manual_seed(0)
    return torch.empty_like(like, device="cpu").normal_(generator=generator)


def medians(timing: Timing, networks: Mapping[str, nn.Module], x: Tensor) -> dict[str, float]:
    """The median seconds of each."""
    return {name: quartiles[1] for name, quartiles in timing(networks, x).items()}
