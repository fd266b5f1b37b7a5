"""Networks side by side, from one layer to the next, each on the same batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pxframe.base.errors import PxframeError
from pxframe.base.inputs import divisible, split
from pxframe.engine.forward import Forward
from pxframe.scoring.products import Product, find_products

if TYPE_CHECKING:
    from pxframe.scoring.net import Net

#: How many numbers the columns of one layer may have at once.
_MOST = 1 << 25
#: How many numbers X X^T of one layer may have: 2 GiB in float64. Those who solve with it need several of the kind.
_MOST_SQUARED = 1 << 28


def sweep(
    net: Net, batches: Sequence[Any], networks: Sequence[Mapping[str, Tensor]]
) -> Iterator[tuple[Product, list[list[Tensor]]]]:
    """Run networks of one graph, in eval mode, up to each product by a prunable weight, in the order of the graph.

    Between two of them the weight of the first may be replaced: a network reads a tensor when it is first used.

    Args:
        batches: inputs. All their values between two layers are in memory at once.
        networks: for each, its parameters and buffers by name.

    Yields:
        the product, and for each network the values of its layer's input, one for each batch.

    Raises:
        PxframeError: the graph cannot be traced, or differs from batch to batch.
    """
    traces = [net.trace(inputs) for inputs in batches]
    kinds = [[(node.op, node.target) for node in trace.nodes] for trace in traces]
    if any(kind != kinds[0] for kind in kinds):
        raise PxframeError("the model computes something else for samples of another size; give samples of one size")
    runs = [
        [Forward(trace, tensors, inputs) for trace, inputs in zip(traces, batches, strict=True)] for tensors in networks
    ]
    products = find_products(traces[0], net.masks, net.device) if traces else {}
    with torch.no_grad():
        for at, node in enumerate(traces[0].nodes if traces else ()):
            nodes = [trace.nodes[at] for trace in traces]
            product = products.pop(node, None)  # so that the index of a layer is gone when the next layer is reached
            if product is not None:
                sources: list[Any] = [own.args[node.args.index(product.source)] for own in nodes]
                yield product, [[run.values[x] for run, x in zip(row, sources, strict=True)] for row in runs]
            for row in runs:
                for run, own in zip(row, nodes, strict=True):
                    if product is not None:
                        run.refresh(product.name)
                    run.step(own)


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

    See :meth:`pxframe.scoring.net.Net.layer_inputs`.
    """
    tensors = {**net.buffers, **net.parameters, **net.masked()}
    for inputs, _ in batches:
        for part in pieces(net, inputs):
            for product, [[value]] in sweep(net, [part], [tensors]):
                yield product, product.columns(value)


def pieces(net: Net, inputs: Any) -> list[Any]:
    """A batch in parts, so that the columns of no layer take more than 128 MiB in float32."""
    number = divisible(inputs)
    if not number:
        return [inputs]
    products = find_products(net.trace(net.one(inputs)), net.masks, net.device).values()
    sizes = [p.columns(torch.empty(p.source.meta["val"].shape, device="meta")).numel() for p in products]
    return split(inputs, max(1, min(number, _MOST // max(sizes, default=1))))
