"""Layers as matrix products: y = W x, with the inputs x of a convolution unfolded into columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from pxframe.base.devices import sent
from pxframe.engine.graph import Trace
from pxframe.engine.rules.table import PRODUCTS, is_transposed, operation


@dataclass(frozen=True)
class Product:
    """One multiplication by a weight, as W [groups, rows, columns] times X [groups, columns, positions].

    A weight that is split before it is used, as in an attention over two inputs, has a product for each part.

    Attributes:
        name: the weight's.
        use: which of the weight's products it is, counted from 0 in the order of the graph. With the name it says
            what the product is in any graph of the model; the names of nodes differ from graph to graph.
        source: the node of the layer's input.
        shape: of W: groups, rows, columns.
        columns: makes X from the value of that node. X may be a view of it.
        layout: equal where ``columns`` does the same.
        make_index: makes ``index``.
    """

    name: str
    use: int
    source: fx.Node
    shape: torch.Size
    columns: Callable[[Tensor], Tensor]
    layout: Hashable
    make_index: Callable[[], Tensor]

    @cached_property
    def index(self) -> Tensor:
        """int64 ``[groups, rows, columns]``: where in the flattened weight each entry of W lies.

        It takes 8 bytes a weight, so it is made when it is first read, and lives as long as this product.
        """
        return self.make_index()


def find_products(trace: Trace, names: Container[str], device: torch.device) -> dict[fx.Node, Product]:
    """The nodes that multiply by one of the named weights, as it is or as a part or another layout of it.

    Left out are deformable convolutions, whose columns depend on offsets, and weights that are computed before use.

    Args:
        device: where an index is to be.
    """
    found: dict[fx.Node, Product] = {}
    uses: Counter[str] = Counter()
    for node in trace.nodes:
        kind = operation(node)
        if kind not in PRODUCTS or kind == "deform_conv2d":
            continue
        weight, other = PRODUCTS[kind]
        for at, carried in ((weight, other), (other, weight)):
            used, source = node.args[at], node.args[carried]
            if isinstance(used, fx.Node) and trace.moved.get(used) in names and source in trace.active:
                read = _convolution if kind == "convolution" else _matrix_product
                matrix = read(node, used, at > carried, trace)
                if matrix is not None:
                    arrange, columns, layout = matrix
                    name = trace.moved[used]
                    shape = arrange(torch.empty(used.meta["val"].shape, device="meta")).shape
                    make_index = partial(_index, used, trace, arrange, device)
                    found[node] = Product(name, uses[name], source, shape, columns, layout, make_index)  # type: ignore[arg-type]
                    uses[name] += 1
                break
    return found


#: From the weight as it is used to W, from the value of its source to X, and what the second depends on.
Matrix = tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor], Hashable]


def _index(used: fx.Node, trace: Trace, arrange: Callable[[Tensor], Tensor], device: torch.device) -> Tensor:
    return sent(arrange(_positions(used, trace)).long(), device)


def _positions(node: fx.Node, trace: Trace) -> Tensor:
    """Where in the flattened parameter each entry of a node lies that is a part or another layout of it."""
    if node in trace.tensors:
        shape = node.meta["val"].shape
        return torch.arange(prod(shape), dtype=torch.float64).view(shape)  # some operations move no integers
    source = node.args[0]
    assert isinstance(source, fx.Node)
    return node.target(_positions(source, trace), *node.args[1:], **node.kwargs)  # type: ignore[operator]


def _matrix_product(node: fx.Node, used: fx.Node, on_right: bool, trace: Trace) -> Matrix | None:
    shape = used.meta["val"].shape
    turned = operation(node) != "linear" and on_right  # x @ w, w [..., in, out]
    if len(shape) == 3:
        period = _period(used, trace)

        def several(x: Tensor) -> Tensor:
            x = (x.mT if on_right else x).unflatten(0, (-1, period))  # [repeats, groups, columns, positions]
            return x.permute(1, 2, 0, 3).flatten(2)

        return lambda w: (w.mT if turned else w)[:period], several, ("batched", on_right, period)
    if len(shape) != 2:
        return None

    def one(x: Tensor) -> Tensor:
        if on_right:
            return x.reshape(-1, x.shape[-1]).mT[None]
        return x.movedim(-2, 0).reshape(1, x.shape[-2], -1)

    return lambda w: (w.mT if turned else w)[None], one, ("plain", on_right)


def _period(used: fx.Node, trace: Trace) -> int:
    """How many matrices there are along the batch dimension before they are repeated. Only positions tell."""
    number = len(used.meta["val"])
    if number == 1:
        return 1
    positions = _positions(used, trace)
    starts = (positions == positions[:1]).flatten(1).all(1)
    period = int(starts[1:].nonzero()[0]) + 1 if starts[1:].any() else number
    if number % period or not (positions.unflatten(0, (-1, period)) == positions[:period]).all():
        return number
    return period


def _convolution(node: fx.Node, used: fx.Node, on_right: bool, trace: Trace) -> Matrix | None:
    geometry: Any = node.args[3:9]
    stride, padding, dilation, _, output_padding, groups = geometry
    kernel = used.meta["val"].shape[2:]
    transposed = is_transposed(node)
    stride, padding, dilation, output_padding = (
        _each(value, len(kernel)) for value in (stride, padding, dilation, output_padding)
    )
    pads = [(p, p) for p in padding]
    spread = [1] * len(kernel)
    if transposed:  # a plain convolution over the inputs set apart by the stride, with the kernel turned
        before = [d * (k - 1) - p for d, k, p in zip(dilation, kernel, padding, strict=True)]
        pads = [(b, b + o) for b, o in zip(before, output_padding, strict=True)]
        stride, spread = spread, stride

    def arrange(weight: Tensor) -> Tensor:
        weight = weight.reshape(groups, -1, *weight.shape[1:])  # [groups, out, in, *kernel]
        if transposed:
            weight = weight.transpose(1, 2).flip(tuple(range(3, weight.ndim)))
        return weight.flatten(2)

    def columns(x: Tensor) -> Tensor:
        x = _spread(x, spread)
        x = F.pad(x, [side for pair in reversed(pads) for side in pair])
        for dim, (k, s, d) in enumerate(zip(kernel, stride, dilation, strict=True), start=2):
            x = x.unfold(dim, (k - 1) * d + 1, s)[..., ::d]  # [batch, in, *positions, *kernel]
        x = x.unflatten(1, (groups, -1))
        n = len(kernel)
        order = [1, 2, *range(3 + n, 3 + 2 * n), 0, *range(3, 3 + n)]
        return x.permute(order).reshape(groups, -1, prod([x.shape[0], *x.shape[3 : 3 + n]]))

    layout = (*map(tuple, (kernel, stride, spread, pads, dilation)), groups)
    return arrange, columns, layout


def _each(value: Any, dims: int) -> list[int]:
    """One number for each dimension; aten allows one for all."""
    return list(value) * dims if len(value) == 1 else list(value)


def _spread(x: Tensor, steps: Sequence[int]) -> Tensor:
    """``x`` with zeros between its entries, ``step - 1`` of them along each dimension of space."""
    if all(step == 1 for step in steps):
        return x
    apart = x.new_zeros(*x.shape[:2], *((n - 1) * step + 1 for n, step in zip(x.shape[2:], steps, strict=True)))
    every = (slice(None), slice(None), *(slice(None, None, step) for step in steps))
    apart[every] = x
    return apart
