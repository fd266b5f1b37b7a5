"""Networks side by side, from one layer to the next, each on the same batches."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence, Set
from dataclasses import replace
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx

from pxframe.base.errors import PxframeError
from pxframe.engine.forward import Forward
from pxframe.engine.graph import Trace
from pxframe.engine.rules.norms import BATCH_NORMS
from pxframe.engine.rules.table import operation
from pxframe.passes.products import Product, find_products
from pxframe.running.inputs import divisible, split

if TYPE_CHECKING:
    from pxframe.network.net import Net

#: How many numbers the columns of one layer may have at once.
_MOST = 1 << 25
#: How many numbers X X^T of one layer may have: 2 GiB in float64. Those who solve with it need several of the kind.
_MOST_SQUARED = 1 << 28


def sweep(
    net: Net,
    batches: Sequence[Any],
    networks: Sequence[Mapping[str, Tensor]],
    measured: MutableMapping[str, Tensor] | None = None,
) -> Iterator[tuple[Product, list[list[Tensor]]]]:
    """Run networks, in eval mode, up to each product by a prunable weight, in the order of the graph.

    Between two of them the weight of the first may be replaced: a network reads a tensor when it is first used.

    Batches may have graphs of their own, as one image alone often has: what counts is that they have the same products.

    Args:
        batches: inputs. All their values between two layers are in memory at once.
        networks: for each, its parameters and buffers by name.
        measured: one of the networks. Each of its batch norms that comes before the last product gets the mean and
            variance of what reaches it, over all batches, before it is run; they are written into this mapping.

    Yields:
        the product, and for each network the values of its layer's input, one for each batch.

    Raises:
        PxframeError: a graph cannot be traced, or its products differ from those of another batch.
    """
    traces = [net.trace(inputs) for inputs in batches]
    found = [find_products(trace, net.masks, net.device) for trace in traces]
    _check_alike([list(products.values()) for products in found])
    runs = [
        [Forward(trace, tensors, inputs) for trace, inputs in zip(traces, batches, strict=True)] for tensors in networks
    ]
    of_batches = list(zip(*runs, strict=True))  # for each batch, its run of every network
    number = next((i for i, tensors in enumerate(networks) if tensors is measured), None)
    norms = [[] if number is None else list(_norms(trace)) for trace in traces]
    if len({len(nodes) for nodes in norms}) > 1:
        raise PxframeError("some of the batches run other batch norms than the first; give samples of one size")
    stops = [set(products).union(nodes) for products, nodes in zip(found, norms, strict=True)]
    left = [iter(trace.nodes) for trace in traces]
    waiting = [deque(products.items()) for products in found]
    del found  # which would hold the products, and their indices, to the end
    with torch.no_grad():
        while waiting and waiting[0]:
            reached = [_advance(*walk) for walk in zip(left, stops, of_batches, strict=True)]
            if reached[0] is not waiting[0][0][0]:
                assert number is not None
                assert measured is not None
                names = _measure(traces, reached, runs[number], measured)
            else:
                here = [queue.popleft()[1] for queue in waiting]
                yield _at(here, runs)
                names = [here[0].name]
                del here  # so that the index of a layer is gone when the next layer is reached
            for node, of_batch in zip(reached, of_batches, strict=True):
                for run in of_batch:
                    for name in names:
                        run.refresh(name)
                    run.step(node)


def _advance(nodes: Iterator[fx.Node], stops: Set[fx.Node], of_batch: Sequence[Forward]) -> fx.Node:
    """Run one batch's networks up to the next stop, and say where that is."""
    for node in nodes:
        if node in stops:
            return node
        for run in of_batch:
            run.step(node)
    raise AssertionError("a graph ended before its last product")


def _norms(trace: Trace) -> Iterator[fx.Node]:
    """The batch norms that use running statistics of the model."""
    for node in trace.nodes:
        if operation(node) in BATCH_NORMS and all(node.args[i] in trace.tensors for i in (3, 4)):
            yield node


def _measure(
    traces: Sequence[Trace], nodes: Sequence[fx.Node], runs: Sequence[Forward], tensors: MutableMapping[str, Tensor]
) -> list[str]:
    """Mean and unbiased variance of what reaches a batch norm, over all batches; the names of what was written."""
    mean, variance = (traces[0].tensors[nodes[0].args[i]] for i in (3, 4))  # type: ignore[index]
    inputs = [run.values[node.args[0]] for run, node in zip(runs, nodes, strict=True)]  # type: ignore[index]
    numbers = torch.tensor([x.numel() // x.shape[1] for x in inputs]).view(-1, 1)
    if numbers.sum() < 2:
        return []
    found = [torch.var_mean(x.double(), [d for d in range(x.ndim) if d != 1], correction=0) for x in inputs]
    spreads, centers = (torch.stack(of_batches) for of_batches in zip(*found, strict=True))  # [batches, channels]
    numbers = numbers.to(centers)
    center = (numbers * centers).sum(0) / numbers.sum()
    spread = (numbers * (spreads + (centers - center).square())).sum(0) / (numbers.sum() - 1)
    tensors[mean], tensors[variance] = center.to(tensors[mean]), spread.to(tensors[variance])
    return [mean, variance]


def _at(products: Sequence[Product], runs: Sequence[Sequence[Forward]]) -> tuple[Product, list[list[Tensor]]]:
    """The first of the batches' products, and what its ``columns`` takes, of every network and batch."""
    values = [[run.values[own.source] for run, own in zip(row, products, strict=True)] for row in runs]
    if all(own.layout == products[0].layout for own in products):
        return products[0], values
    # A graph may put the positions elsewhere. Of the matrix products that do so, X is as large as the value.
    values = [[own.columns(value) for own, value in zip(products, row, strict=True)] for row in values]
    return replace(products[0], columns=lambda x: x), values


def _check_alike(found: Sequence[Sequence[Product]]) -> None:
    """Refuse batches with other products than the first.

    Raises:
        PxframeError: names the first layer at which they part.
    """
    for products in found[1:]:
        for one, other in zip_longest(found[0], products):
            if one is None or other is None or (one.name, one.shape) != (other.name, other.shape):
                name = (one or other).name
                raise PxframeError(
                    f"{name} is used in another way, or at another place, for some of the batches; give samples of "
                    f"one size, or exclude it (exclude={name!r}; prune.exclude in a config)"
                )


def check_squares(net: Net, inputs: Any) -> None:
    """Refuse layers with so many inputs that X X^T, ``[groups, columns, columns]``, would take more than 2 GiB.

    Args:
        inputs: any batch; only its shape, dtype and device matter.

    Raises:
        PxframeError: names the first such layer and its size.
    """
    for product in find_products(net.trace(net.one(inputs)), net.masks, net.device).values():
        groups, _, columns = product.shape
        if groups * columns**2 > _MOST_SQUARED:
            size, most = (8 * number / 1e9 for number in (groups * columns**2, _MOST_SQUARED))
            raise PxframeError(
                f"{product.name} has {columns:,} inputs: their Hessian would take {size:.1f} GB, more than the "
                f"{most:.1f} GB allowed; exclude it (exclude={product.name!r}; prune.exclude in a config)"
            )


def layer_inputs(net: Net, batches: Iterable[tuple[Any, Any]]) -> Iterator[tuple[Product, Tensor]]:
    """What each layer of the masked network is given, part by part of the data.

    See :meth:`pxframe.network.net.Net.layer_inputs`.
    """
    tensors = {**net.buffers, **net.parameters, **net.masked()}
    for inputs, _ in batches:
        for part in pieces(net, inputs):
            for product, [[value]] in sweep(net, [part], [tensors]):
                yield product, product.columns(value)


def pieces(net: Net, inputs: Any) -> list[Any]:
    """A batch in even parts, so that the columns of no layer take more than 128 MiB in float32.

    A part with one sample alone, which often has a graph of its own, is made only where no other is possible.
    """
    number = divisible(inputs)
    if not number:
        return [inputs]
    products = find_products(net.trace(net.one(inputs)), net.masks, net.device).values()
    sizes = [p.columns(torch.empty(p.source.meta["val"].shape, device="meta")).numel() for p in products]
    most = max(1, min(number, _MOST // max([1, *sizes])))
    parts = -(-number // most)
    return split(inputs, [number // parts + (part < number % parts) for part in range(parts)])
