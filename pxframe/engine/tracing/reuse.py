"""Finds the operations that may write over their input, because no later node reads it.

In a trace every operation allocates its result. For an activation or a sum that costs more than the arithmetic, so
these work in place again, in f and in the path networks, wherever no gradients are recorded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, fx

from pxframe.engine.rules.table import PRODUCTS, operation
from pxframe.engine.scaled import writable

IN_PLACE = frozenset(("relu", "add"))
#: Operations that allocate their result, in f and in every reading. Any other may return a view of its input.
_FRESH = frozenset(
    (
        *PRODUCTS,
        *("mean", "sum", "cat"),
        *(
            "max_pool2d_with_indices",
            "max_pool3d_with_indices",
            "avg_pool2d",
            "avg_pool3d",
            "_adaptive_avg_pool2d",
            "upsample_bilinear2d",
        ),
    )
)


def find_reuse(
    nodes: list[fx.Node], inputs: Sequence[fx.Node], active: set[fx.Node], last_use: Mapping[fx.Node, list[fx.Node]]
) -> dict[fx.Node, int]:
    """The nodes of ``IN_PLACE`` that may work in place, each with the position of the argument to write over."""
    dies = {node: at for at, user in enumerate(nodes) for node in last_use[user] if node not in inputs}
    # node -> the nodes that may have allocated its memory, and the nodes that may use it
    memory: dict[fx.Node, set[fx.Node]] = {node: {node} for node in inputs}
    holders: dict[fx.Node, list[fx.Node]] = {node: [node] for node in inputs}
    reuse: dict[fx.Node, int] = {}
    for at, node in enumerate(nodes):
        if node not in active:
            continue
        shared: set[fx.Node] = (
            set()
            if operation(node) in _FRESH
            else {node}.union(*(memory[n] for n in node.all_input_nodes if n in active))
        )
        memory[node] = shared or {node}
        if operation(node) in IN_PLACE:
            for index, source in enumerate(node.args[:2]):
                if not (isinstance(source, fx.Node) and source in active and _like(source, node)):
                    continue
                others = [n for n in node.all_input_nodes if n in active and n is not source]
                if any(memory[source] & memory[n] for n in others):
                    continue  # the other summand may be a view of the same memory
                if all(dies.get(n, len(nodes)) <= at for root in memory[source] for n in holders[root]):
                    reuse[node] = index
                    break
        for root in memory[node]:
            holders.setdefault(root, []).append(node)
    return reuse


def _like(source: fx.Node, node: fx.Node) -> bool:
    a, b = source.meta["val"], node.meta["val"]
    return isinstance(a, Tensor) and a.shape == b.shape and a.dtype == b.dtype and writable(a)
