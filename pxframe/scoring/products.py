"""Layers as matrix products: y = W x, with the inputs x of a convolution unfolded into columns."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from pxframe.engine.graph import Trace
from pxframe.engine.rules.table import PRODUCTS, is_transposed, operation


@dataclass(frozen=True)
class Product:
    """One multiplication by a weight, as W [groups, rows, columns] times X [groups, columns, positions].

    Attributes:
        name: the weight's.
        index: int64 ``[groups, rows, columns]``: where in the flattened weight each entry of W lies. A weight that is
            split before it is used, as in an attention over two inputs, has a product for each part.
        source: the node of the layer's input.
        columns: makes X from the value of that node. X may be a view of it.
    """

    name: str
    index: Tensor
    source: fx.Node
    columns: Callable[[Tensor], Tensor]


def find_products(trace: Trace, names: Container[str]) -> dict[fx.Node, Product]:
    """The nodes that multiply by one of the named weights, as it is or as a part or another layout of it.

    Left out are deformable convolutions, whose columns depend on offsets, and weights that are computed before use.
    """
    found = {}
    for node in trace.nodes:
        kind = operation(node)
        if kind not in PRODUCTS or kind == "deform_conv2d":
            continue
        weight, other = PRODUCTS[kind]
        for at, carried in ((weight, other), (other, weight)):
            used = node.args[at]
            if isinstance(used, fx.Node) and trace.moved.get(used) in names and node.args[carried] in trace.active:
                read = _convolution if kind == "convolution" else _matrix_product
                matrix = read(node, _positions(used, trace), at > carried, kind)
                if matrix is not None:
                    found[node] = Product(trace.moved[used], matrix[0], node.args[carried], matrix[1])  # type: ignore[arg-type]
                break
    return found


Matrix = tuple[Tensor, Callable[[Tensor], Tensor]]


def _positions(node: fx.Node, trace: Trace) -> Any:
    """Where in the flattened parameter each entry of a node lies that is a part or another layout of it."""
    if node in trace.tensors:
        shape = node.meta["val"].shape
        return torch.arange(prod(shape), dtype=torch.float64).view(shape)  # some operations move no integers
    source = node.args[0]
    assert isinstance(source, fx.Node)
    return node.target(_positions(source, trace), *node.args[1:], **node.kwargs)  # type: ignore[operator]


def _matrix_product(node: fx.Node, positions: Tensor, on_right: bool, kind: str) -> Matrix | None:
    index = positions.long()
    if kind != "linear" and on_right:  # x @ w, w [..., in, out]
        index = index.mT
    if index.ndim > 3 or index.ndim < 2:
        return None
    if index.ndim == 3 and (len(index) == 1 or bool((index == index[:1]).all())):  # the same weight for each sample
        index = index[0]
    if index.ndim == 3:  # a matrix for each entry of the batch dimension
        return index, lambda x: x.mT if on_right else x
    if on_right:
        return index[None], lambda x: x.reshape(-1, x.shape[-1]).mT[None]
    return index[None], lambda x: x.movedim(-2, 0).reshape(1, x.shape[-2], -1)


def _convolution(node: fx.Node, positions: Tensor, on_right: bool, kind: str) -> Matrix | None:
    geometry: Any = node.args[3:9]
    stride, padding, dilation, _, output_padding, groups = geometry
    kernel = positions.shape[2:]
    index = positions.long().view(groups, -1, *positions.shape[1:])  # [groups, out, in, *kernel]
    stride, padding, dilation, output_padding = (
        _each(value, len(kernel)) for value in (stride, padding, dilation, output_padding)
    )
    pads = [(p, p) for p in padding]
    spread = [1] * len(kernel)
    if is_transposed(node):  # a plain convolution over the inputs set apart by the stride, with the kernel turned
        index = index.transpose(1, 2).flip(tuple(range(3, index.ndim)))
        before = [d * (k - 1) - p for d, k, p in zip(dilation, kernel, padding, strict=True)]
        pads = [(b, b + o) for b, o in zip(before, output_padding, strict=True)]
        stride, spread = spread, stride

    def columns(x: Tensor) -> Tensor:
        x = _spread(x, spread)
        x = F.pad(x, [side for pair in reversed(pads) for side in pair])
        for dim, (k, s, d) in enumerate(zip(kernel, stride, dilation, strict=True), start=2):
            x = x.unfold(dim, (k - 1) * d + 1, s)[..., ::d]  # [batch, in, *positions, *kernel]
        x = x.unflatten(1, (groups, -1))
        n = len(kernel)
        order = [1, 2, *range(3 + n, 3 + 2 * n), 0, *range(3, 3 + n)]
        return x.permute(order).reshape(groups, -1, prod([x.shape[0], *x.shape[3 : 3 + n]]))

    return index.flatten(2), columns


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
