"""Gradients of single samples: many at once where the model allows it, else one after the other.

A sample's gradient is that of the loss of a batch in which it is alone. Many at once are the same computation under
:func:`torch.func.vmap`. Not every model or loss can be run so, and one that writes into tensors or reads numbers
back says so only when it is tried. So the first chunk of each kind is tried, and its first sample is compared with the
gradient of plain autograd.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.func import grad, jacrev, vmap

from pxframe.base.errors import PxframeError, within
from pxframe.engine.tracing.unfused import math_attention
from pxframe.running.calls import Loss
from pxframe.running.inputs import filled, is_cut, leaves, samples, signature, split
from pxframe.running.threads import repeatable

if TYPE_CHECKING:
    from pxframe.network.net import Net

Gradients = dict[str, Tensor]
#: A chunk's gradients hold so many numbers at most, 128 MB in float32, unless those of a single sample hold more.
_ENTRIES = 1 << 25
#: Samples in a chunk at most: their activations are in memory too, and on a CPU 8 were twice as fast as 32.
_CHUNK = 8
#: How far gradients computed in two ways may differ, relative to the largest entry of their layer.
_ROUNDING = 1e-3


def sample_gradients(
    net: Net,
    batches: Iterable[tuple[Any, Any]],
    names: Iterable[str] | None = None,
    chunk: int | None = None,
    rows: int | None = None,
) -> Iterator[Gradients]:
    """See :meth:`pxframe.network.net.Net.sample_gradients`."""
    masked = net.masked()
    names = list(masked) if names is None else list(names)
    own = net.parameters
    weights = {**{name: own[name] for name in names}, **masked}
    entries = sum(weights[name].numel() for name in names) * (rows or 1)
    size = chunk or max(1, min(_CHUNK, _ENTRIES // max(1, entries)))
    for number, (inputs, targets) in enumerate(batches):
        with within(f"batch {number}"):
            for part in parts(inputs, targets, size):
                together = None if size == 1 else _together(net, weights, names, rows, *part)
                if together is not None:
                    yield together
                    continue
                for one in parts(*part, 1):
                    yield {n: gradient.unsqueeze(0) for n, gradient in _alone(net, weights, names, rows, one).items()}


def mean_squares(
    net: Net,
    batches: Iterable[tuple[Any, Any]],
    of: Callable[[Gradients], Mapping[str, Tensor]],
    names: Iterable[str] | None = None,
) -> dict[str, Tensor]:
    """The mean over all samples of the squares of what ``of`` makes of their gradients, by its names.

    Args:
        of: of the gradients of a chunk, ``[samples, *shape]`` by name, it makes tensors ``[samples, ...]``.
        names: of the parameters whose gradients it takes; default: all prunable weights.
    """
    total: dict[str, Tensor] = {}
    number = 0
    for gradients in net.sample_gradients(batches, names):
        number += len(next(iter(gradients.values())))
        for name, value in of(gradients).items():
            squares = value.square().sum(0)
            total[name] = total[name] + squares if name in total else squares
    return {name: squares / number for name, squares in total.items()}


def rows_at_once(net: Net, rows: int, size: int) -> int:
    """How many of ``rows`` gradients of every sample to take at once, without fewer samples in a chunk for that.

    Args:
        size: numbers in a batch's targets for each row.
    """
    weights = sum(weight.numel() for weight in net.weights.values())
    return max(1, min(rows, _ENTRIES // max(1, _CHUNK * weights, size)))


def outputs_of(output: Any, count: int = 1) -> Tensor:
    """Every floating-point number that the model gives for each of ``count`` samples, ``[count, K]``.

    Raises:
        PxframeError: there is none.
    """
    found = [leaf.reshape(count, -1) for leaf in leaves(output) if leaf.is_floating_point()]
    if not found:
        raise PxframeError(
            "the model has no floating-point output to take gradients of; a scorer that reads a loss can be used"
        )
    return torch.cat(found, 1)


def along_rows(output: Any, directions: Tensor) -> Tensor:
    """A loss for gradients of outputs: the products with the directions ``[1, rows, K]`` of one sample, ``[rows]``."""
    return (outputs_of(output) * directions.flatten(0, 1)).sum(1)


def parts(inputs: Any, targets: Any, size: int) -> list[tuple[Any, Any]]:
    """A batch as batches of at most ``size`` samples; views. Targets without a tensor are the same for all.

    Raises:
        PxframeError: it cannot be divided.
    """
    number = samples(inputs)
    if not is_cut(inputs):
        raise PxframeError(
            "the input holds a list, which may have one entry for each sample, so it cannot be divided; this method "
            "needs one tensor for the whole batch"
        )
    for tensor in leaves(targets):
        if tensor.ndim == 0 or len(tensor) != number:
            raise PxframeError(
                f"a target of shape {list(tensor.shape)} beside {number} samples; its first dimension must be the batch"
            )
    wanted = split(targets, size) if leaves(targets) else [targets] * -(-number // size)
    return list(zip(split(inputs, size), wanted, strict=True))


def _alone(net: Net, weights: Gradients, names: list[str], rows: int | None, batch: tuple[Any, Any]) -> Gradients:
    """The gradient of one sample, by plain autograd; of every row, one after the other."""
    losses = [net.loss] if rows is None else [partial(_row, net.loss, row) for row in range(rows)]
    with net.evaluating():
        found = [net.with_(loss=loss).gradients([batch], weights) for loss in losses]
    return {name: found[0][name] if rows is None else torch.stack([g[name] for g in found]) for name in names}


def _row(loss: Loss, row: int, output: Any, target: Any) -> Tensor:
    return loss(output, target)[row]


def _together(
    net: Net, weights: Gradients, names: list[str], rows: int | None, inputs: Any, targets: Any
) -> Gradients | None:
    """The gradients of all samples, ``[samples, *shape]`` each; None where that cannot be done."""
    first = parts(inputs, targets, 1)[0]
    kind = net.loss, signature(first)
    known = net.together.get(kind)
    if known is False:
        return None
    try:
        found = _vectorised(net, weights, names, rows, inputs, targets)
    except torch.OutOfMemoryError:
        raise
    except Exception:  # of any model; if it fails at all, a sample alone says why
        net.together[kind] = False
        return None
    if known is None:
        net.together[kind] = _agree(found, _alone(net, weights, names, rows, first))
    return found if net.together[kind] else None


def _vectorised(
    net: Net, weights: Gradients, names: list[str], rows: int | None, inputs: Any, targets: Any
) -> Gradients:
    given, wanted = leaves(inputs), leaves(targets)

    def loss(values: Gradients, x: list[Tensor], y: list[Tensor]) -> Tensor:
        one, target = filled(inputs, [t.unsqueeze(0) for t in x]), filled(targets, [t.unsqueeze(0) for t in y])
        return net.loss(net(one, {**weights, **values}), target)

    with net.evaluating(), math_attention(), torch.enable_grad(), repeatable(len(given[0])), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "There is a performance drop")  # it is as slow as one after the other
        # Numbers drawn in ``forward`` are refused: a sample alone would draw others.
        together = vmap((jacrev if rows else grad)(loss), in_dims=(None, 0, 0), randomness="error")
        found = together({name: weights[name] for name in names}, given, wanted)
    return {name: gradient.detach() for name, gradient in found.items()}


def _agree(found: Gradients, plain: Gradients) -> bool:
    """Whether the first sample's gradients are equal up to rounding, also where they are infinite or undefined.

    Asks the device, once for each kind of batch.
    """
    plain = {name: g for name, g in plain.items() if g.numel()}  # of no numbers none is the largest
    largest = {name: g.abs().nan_to_num(0, 0).amax() for name, g in plain.items()}
    overall = torch.stack([m.double() for m in largest.values()]).amax()
    agreed = []
    for name, g in plain.items():
        one, bound = found[name][0], _ROUNDING * (largest[name] + _ROUNDING * overall)
        agreed.append((((one - g).abs() <= bound) | (one == g) | (one.isnan() & g.isnan())).all())
    return bool(torch.stack(agreed).all())
