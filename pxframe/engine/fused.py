"""Fused weights: which rows of an attention's ``qkv`` make queries, which keys, and which values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, fx

from pxframe.engine.graph import Trace
from pxframe.engine.rules.norms import BATCH_NORMS
from pxframe.engine.rules.shapes import MOVES, SAME
from pxframe.engine.rules.table import CONVOLUTIONS, PRODUCTS, SOFTMAX, is_transposed, operation

#: Name of a part ("q", "k", "v") -> ranges of rows, from the first up to but without the last.
Parts = dict[str, list[tuple[int, int]]]
#: Operations that leave every value where it is.
_IN_PLACE = SAME | {"mul", "div", "add", "sub", "neg", "masked_fill", "where", "clamp", "clamp_min", "clamp_max"}
_IN_PLACE |= {*BATCH_NORMS, "native_layer_norm", "_fused_rms_norm", "relu", "silu", "gelu", "sigmoid"}


def find_fused(trace: Trace) -> dict[str, Parts]:
    """The weights whose rows make two or three of an attention's queries, keys and values, with their parts.

    Each value of a layer's output is followed, by the number of the row that made it, until it meets another value in a
    matrix product. The two sides of the product that a softmax is taken of are the queries and the keys; what that
    softmax is multiplied by are the values.

    Returns:
        name of a parameter -> its parts. Weights that make only one of the three are left out.
    """
    follow = _Follower(trace)
    for node in trace.nodes:
        if node in trace.active:
            follow.step(node)
    fused = {name: parts for name, parts in follow.found.items() if len(parts) > 1}
    return {name: {part: _ranges(rows) for part, rows in parts.items()} for name, parts in fused.items()}


class _Follower:
    """Follows each value of a layer's output from the row that made it to the product that uses it."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        # node -> by position the number of the row that made a value, -1: another weight's; floats, since some of the
        # operations that move values move no integers
        self._rows: dict[fx.Node, Any] = {}
        self._names: dict[fx.Node, str] = {}  # node -> the weight whose rows they are
        self._sides: dict[fx.Node, tuple[fx.Node, fx.Node]] = {}  # product of two, or behind one -> left and right
        self._columns: dict[fx.Node, Any] = {}  # the same nodes -> by position the number of the right side's column
        self._attends: dict[fx.Node, tuple[fx.Node, fx.Node]] = {}  # a softmax, or behind one -> queries and keys
        self.found: dict[str, dict[str, set[int]]] = {}

    def step(self, node: fx.Node) -> None:
        kind = operation(node)
        if kind in PRODUCTS:
            self._product(node)
        elif kind in SOFTMAX:
            if node.args[0] in self._sides:
                self._attends[node] = self._queries_and_keys(cast(fx.Node, node.args[0]), cast(int, node.args[1]))
        elif kind in MOVES or kind in _IN_PLACE or kind in ("getitem", "cat"):
            for known in (self._sides, self._attends):
                for read in node.all_input_nodes[:2]:
                    if read in known:
                        known[node] = known[read]
            self._move(node)

    def _product(self, node: fx.Node) -> None:
        left, right = (cast(fx.Node, node.args[at]) for at in sorted(PRODUCTS[operation(node)]))
        for weight, on_right in ((right, True), (left, False)):
            if weight in self._trace.moved:
                self._start(node, weight, on_right)
                return
        for attention, values in ((left, right), (right, left)):
            if attention in self._attends:
                for part, side in zip("qkv", (*self._attends[attention], values), strict=True):
                    self._note(part, side)
                return
        if left in self._names and right in self._names:
            self._sides[node], shape = (left, right), node.meta["val"].shape
            self._columns[node] = torch.arange(float(shape[-1])).expand(shape)

    def _queries_and_keys(self, scores: fx.Node, dim: int) -> tuple[fx.Node, fx.Node]:
        """The two sides of a product that a softmax is taken of. It is taken over the keys."""
        left, right = self._sides[scores]
        columns = self._columns.get(scores)
        if columns is None or columns.shape[dim] == 1:
            return left, right
        over_rows = torch.equal(columns, columns.narrow(dim, 0, 1).expand_as(columns))
        return (right, left) if over_rows else (left, right)

    def _start(self, node: fx.Node, weight: Any, on_right: bool) -> None:
        """The rows of a weight that make each value of the node."""
        shape, numbers, kind = node.meta["val"].shape, self._numbers(weight), operation(node)
        if kind in CONVOLUTIONS:
            if is_transposed(node):  # the rows are inputs
                return
            rows = numbers.flatten(1)[:, 0].view(-1, *[1] * (len(shape) - 2))
        else:
            summed = -1 if kind == "linear" or not on_right else -2  # the dimension of the inputs
            rows = numbers.narrow(summed, 0, 1)
            if not torch.equal(numbers, rows.expand_as(numbers)):
                return
            rows = rows.squeeze(-1) if kind == "linear" else rows
        self._rows[node], self._names[node] = rows.expand(shape), self._trace.moved[weight]

    def _numbers(self, node: Any) -> Any:
        """By position in a parameter, or in a part or another layout of it: the number of the parameter's row."""
        if node in self._trace.tensors:
            shape = node.meta["val"].shape
            return torch.arange(float(shape[0])).view(-1, *[1] * (len(shape) - 1)).expand(shape)
        whole = self._numbers(node.args[0])
        return whole[node.args[1]] if operation(node) == "getitem" else _apply(node, whole)

    def _move(self, node: fx.Node) -> None:
        """What is known of the values that an operation moves, or leaves where they are."""
        columns = [n for n in node.all_input_nodes if n in self._columns]
        if columns:
            self._columns[node] = _moved(node, self._columns, columns)
        known = [n for n in node.all_input_nodes if n in self._names]
        if not known:
            return
        name, moves = self._names[known[0]], operation(node) in MOVES or operation(node) in ("getitem", "cat")
        if not moves and any(self._names[n] != name or not self._same_rows(known[0], n) for n in known[1:]):
            return  # two layers' values, or a gate and what it multiplies: neither's
        rows = _moved(node, self._rows, [n for n in known if self._names[n] == name])
        if rows is not None:
            self._rows[node], self._names[node] = rows, name

    def _same_rows(self, one: fx.Node, other: fx.Node) -> bool:
        return torch.equal(self._rows[one].unique(), self._rows[other].unique())

    def _note(self, part: str, side: Any) -> None:
        if side in self._names:
            rows = set(map(int, self._rows[side].unique().tolist())) - {-1}
            self.found.setdefault(self._names[side], {}).setdefault(part, set()).update(rows)


def _moved(node: fx.Node, numbers: Mapping[fx.Node, Any], known: list[fx.Node]) -> Any:
    """The numbers of a node's values, from those of the inputs that are ``known``; None if they cannot be told."""
    kind, first = operation(node), numbers[known[0]]
    if kind == "cat":
        parts: Any = node.args[0]
        filled = [numbers[n] if n in known else torch.full(n.meta["val"].shape, -1.0) for n in parts]
        return torch.cat(filled, *cast(tuple[int], node.args[1:]))
    if kind == "getitem":
        return first[node.args[1]]
    if kind in MOVES:
        return None if len(node.all_input_nodes) > 1 else _apply(node, first)  # an index may be a tensor
    if isinstance(node.meta["val"], Tensor):
        return first.expand(node.meta["val"].shape)
    return [first]  # a norm, with its statistics


def _apply(node: fx.Node, numbers: Tensor) -> Any:
    """An operation that moves values, applied to their numbers."""
    if operation(node) in SAME:  # another dtype would round them
        return numbers
    if "view" in operation(node):  # the numbers have other strides than the values
        return numbers.reshape(node.args[1])  # type: ignore[arg-type]
    return node.target(numbers, *node.args[1:], **node.kwargs)  # type: ignore[operator]


def _ranges(rows: Iterable[int]) -> list[tuple[int, int]]:
    ordered = sorted(rows)
    starts = [r for at, r in enumerate(ordered) if at == 0 or ordered[at - 1] != r - 1]
    ends = [r for at, r in enumerate(ordered) if at == len(ordered) - 1 or ordered[at + 1] != r + 1]
    return [(start, end + 1) for start, end in zip(starts, ends, strict=True)]
