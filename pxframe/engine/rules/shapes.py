"""Operations that move values without changing them."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from pxframe.engine.rules.table import Step, operation, rule, unknown
from pxframe.engine.scaled import FLOOR, Scaled, align

#: Applied in the same way to activations, and to weights before a convolution or matrix product.
MOVES = frozenset(
    (
        *("view", "_unsafe_view", "reshape", "flatten", "unsqueeze", "squeeze", "expand", "repeat"),
        *("permute", "t", "transpose", "movedim", "roll", "flip"),
        *("select", "slice", "narrow", "unbind", "split", "split_with_sizes", "unsafe_split", "chunk"),
        *("index", "_unsafe_index", "index_select"),
        *("pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "unfold", "im2col"),
        *(f"{kind}_pad{n}d" for kind in ("reflection", "replication") for n in (1, 2, 3)),
    )
)
#: Identities. ``detach`` is one here: a path network's own gradient must pass.
SAME = frozenset(("detach", "alias", "clone", "contiguous", "lift_fresh_copy", "_to_copy", "dropout"))


@rule(*MOVES, "upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d")
def move(step: Step) -> Any:
    value = step.path()

    def apply(tensor: Tensor) -> Any:
        if "view" in operation(step.node):  # the path value may have other strides than f's value
            return tensor.reshape(step.args[1])
        rest = [_plain(step, argument) for argument in step.args[1:]]
        return step.node.target(tensor, *rest, **step.node.kwargs)  # type: ignore[operator]

    moved = apply(value.mantissa)
    if isinstance(moved, Tensor):
        return Scaled(moved, value.exponent, value.growth)
    return [Scaled(part, value.exponent, value.growth) for part in moved]


@rule(*SAME)
def same(step: Step) -> Scaled:
    return step.path()


@rule("as_strided")
def as_strided(step: Step) -> Scaled:
    """Torch changes the strides of 1x1 kernels and maps for channels_last convolutions. The shape must stay."""
    if step.result_shape() != tuple(step.path().mantissa.shape):
        raise unknown(step.node, "to another shape")
    return step.path()


@rule("col2im")
def col2im(step: Step) -> Scaled:
    """Adds up patches where they overlap: at most one value of each of the kernel's positions."""
    size, kernel, dilation, padding, stride = step.args[1:]

    def fold(m: Tensor) -> Tensor:
        return torch.ops.aten.col2im(m, size, kernel, dilation, padding, stride)

    return step.path().map(fold, math.log2(math.prod(kernel)))


@rule("getitem")
def getitem(step: Step) -> Any:
    return step.paths[step.args[0]][step.args[1]]


@rule("constant_pad_nd", "pad")
def pad(step: Step) -> Scaled:
    """Padding adds constants; whatever they are, no path starts there."""
    return step.path().map(lambda m: torch.constant_pad_nd(m, step.args[1], 0.0))


@rule("cat", "stack")
def cat(step: Step) -> Scaled:
    """Parts that do not depend on the input (a class token) carry no path: zeros."""
    nodes, dim = step.args[0], step.option(1, "dim", 0)
    step.refuse_factors(nodes)
    parts = align([step.paths[n] for n in nodes if step.is_path(n)])
    queue = iter(parts)
    like = parts[0].mantissa
    tensors = [next(queue).mantissa if step.is_path(n) else like.new_zeros(n.meta["val"].shape) for n in nodes]
    joined = step.node.target(tensors, dim)  # type: ignore[operator]
    return Scaled(joined, parts[0].exponent, max((p.growth for p in parts), default=math.inf))


@rule("ones_like", "zeros_like", "full_like", "new_zeros", "new_ones", "new_full")
def constant(step: Step) -> Scaled:
    """These operations read only the shape of their input, so no path leads through them."""
    return Scaled(step.path().mantissa.new_zeros(step.result_shape()), FLOOR, 0.0)


def _plain(step: Step, argument: Any) -> Any:
    """The value of an argument of a move: a number, or an index tensor that does not depend on the input."""
    if isinstance(argument, (list, tuple)):
        return type(argument)(_plain(step, a) for a in argument)
    return step.raw(argument)
