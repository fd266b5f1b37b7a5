"""Reads the graph of units from a trace. A unit is a channel of a convolution or a feature of a linear layer.

Every activation has a label tensor of its own shape, which says to which unit each element belongs. Norms, element-wise
operations and pooling do not change the labels. An operation that moves values moves the labels in the same way.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx

from pxframe.base.errors import PxframeError
from pxframe.engine.factors.roles import RECORDED
from pxframe.engine.graph import Trace
from pxframe.engine.rules.shapes import MOVES
from pxframe.engine.rules.table import CONVOLUTIONS, PRODUCTS, is_transposed, operation
from pxframe_plugins.phew.labels import NONE, along, compact, concatenated, padded, pairs, side_by_side
from pxframe_plugins.phew.places import Places
from pxframe_plugins.phew.units import Product, Units

_SUMS = ("add", "sub", "rsub", "maximum", "minimum")
_REDUCTIONS = ("mean", "sum", "amax", "amin", "var", "var_mean", "linalg_vector_norm")
_EMPTY = ("ones_like", "zeros_like", "full_like", "new_zeros", "new_ones", "new_full")


def read_units(trace: Trace, tensors: Mapping[str, Tensor]) -> Units:
    """Read the graph of units of a traced model.

    A factor (:mod:`pxframe.engine.factors.values`: a value such as squeeze-excite's or an attention weight, which is
    computed from the data and multiplies an activation) has no units. The activation that it multiplies keeps its
    units.

    Args:
        trace: a trace for a single sample. Each entry of an input's second dimension is one input unit.
        tensors: the model's parameters and buffers by name.

    Raises:
        PxframeError: an operation mixes units in a way that is not supported, or no output has units.
    """
    if not trace.outputs:
        raise PxframeError(
            "every output of the model comes from a softmax, a sigmoid or the like, so a walk cannot end at an output"
        )
    units, places = Units(), Places(trace, tensors)
    labels: dict[fx.Node, Any] = {}
    for node in trace.starts:
        shape = _shape(node)
        channels = min(1, len(shape) - 1)  # of one number a sample, the number
        labels[node] = along(units.fresh(shape[channels]), channels, shape)
    units.inputs = torch.arange(units.count)
    for node in trace.nodes:
        if node in trace.paths:
            found = _read(node, labels, units, places)
            several = not (isinstance(node.meta["val"], Tensor) or isinstance(found, (list, tuple)))
            labels[node] = [found] * len(node.meta["val"]) if several else found
        for done in trace.last_use[node]:
            labels.pop(done, None)
    ends = torch.cat([compact(labels[node]).flatten() for node in trace.outputs])
    units.outputs, units.constants = ends[ends != NONE].unique(), places.constants
    return units


def _read(node: fx.Node, labels: Mapping[fx.Node, Any], units: Units, places: Places) -> Any:
    """The labels of a node's result."""
    name, shape = operation(node), _shape(node)
    args: Any = node.args
    sources = _sources(node, labels)
    if not sources:  # an embedding of integer data: each of its features is an input unit
        fresh = units.fresh(shape[-1])
        units.inputs = torch.cat([units.inputs, fresh])
        return along(fresh, len(shape) - 1, shape)
    first = labels[sources[0]]
    if name in PRODUCTS:
        return _product(node, labels, units, places)
    if name == "getitem":
        return first[args[1]]
    if name in MOVES and sources == [args[0]]:
        return places.moved(node, first)
    if name in ("constant_pad_nd", "pad"):
        return padded(first, args[1], shape)
    if name in ("cat", "stack"):
        dim: int = args[1] if len(args) > 1 else 0
        parts = [labels[n] if n in labels else torch.tensor(NONE).expand(_shape(n)) for n in args[0]]
        return concatenated(parts if name == "cat" else [part.unsqueeze(dim) for part in parts], dim, shape)
    if name in _EMPTY:
        return torch.tensor(NONE).expand(shape)
    if len(sources) == 1:
        return _passed(node, first, units)
    if name in _SUMS:
        return units.joint(side_by_side([labels[n] for n in sources], shape), shape)
    raise _lost(node, "of several activations")


def _sources(node: fx.Node, labels: Mapping[fx.Node, Any]) -> list[fx.Node]:
    """The arguments that have units; of an operation that reads one of them at positions, this one alone."""
    return [n for n in node.all_input_nodes if n in labels][: 1 if operation(node) in RECORDED else None]


def _passed(node: fx.Node, labels: Tensor, units: Units) -> Tensor:
    """Labels after an operation on one activation: element-wise, a norm, a reduction, pooling or interpolation."""
    shape, ndim, reduces = _shape(node), labels.ndim, operation(node) in _REDUCTIONS
    if reduces and len(shape) < ndim:
        asked: Any = node.args[1] if len(node.args) > 1 else None
        dims = sorted(d % ndim for d in ([asked] if isinstance(asked, int) else asked or range(ndim)))
    else:
        dims = [d for d, (size, new) in enumerate(zip(labels.shape, shape, strict=False)) if size not in (1, new)]
    if not reduces and (len(shape) != ndim or min(dims, default=2) < 2):
        raise _lost(node, f"from shape {tuple(labels.shape)} to {tuple(shape)}")
    if not dims:
        return labels.expand(shape)
    found = _merged(labels, dims, units)
    return found.expand(shape) if len(shape) == ndim else found.reshape(shape)


def _merged(labels: Tensor, dims: list[int], units: Units) -> Tensor:
    """Merge all units along ``dims`` (ascending) into one unit. These dimensions stay in the result, with size 1."""
    lead = [size for d, size in enumerate(labels.shape) if d not in dims]
    rows = labels.movedim(dims, list(range(-len(dims), 0))).flatten(len(lead))
    found = units.joint(compact(rows), lead)
    for d in dims:
        found = found.unsqueeze(d)
    return found


def _product(node: fx.Node, labels: Mapping[fx.Node, Any], units: Units, places: Places) -> Tensor:
    """Labels after a product of an activation and a weight: each output channel is a new unit."""
    name, shape = operation(node), _shape(node)
    args: Any = node.args
    weight, x = (args[place] for place in PRODUCTS[name])
    sources = _sources(node, labels)
    if name in ("mm", "bmm", "matmul") and len(sources) == 1 and not (x in places or weight in places):
        # The other factor holds attention weights: they mix positions and leave channels apart.
        mixed = -1 if sources == [x] else -2
        return _merged(labels[sources[0]], [labels[sources[0]].ndim + mixed], units).expand(shape)
    if sources != [x] or weight not in places:
        raise _lost(node, "of several activations, or of one from the left")
    key, index = places.of(weight)
    if name in CONVOLUTIONS:
        dim, transposed, groups = 1, is_transposed(node), args[8 if name == "convolution" else 11]
        outer, inner = index.shape[:2]  # [out, in / groups, *kernel]; transposed: [in, out / groups, *kernel]
        index = index.reshape(groups, outer // groups, inner, -1)
        index = index if transposed else index.transpose(1, 2)
    else:
        dim, index = -1, index.mT if name == "linear" else index  # [..., in, out]
        if any(size > 1 and stride > 0 for size, stride in zip(index.shape[:-2], index.stride(), strict=False)):
            raise _lost(node, "by a batch of weights")
        _check_channels(node, labels[x])
        index = index[(0,) * (index.ndim - 2)][None, :, :, None]
    out = units.fresh(index.shape[0] * index.shape[2])
    units.operations.append(Product(key, index, pairs(labels[x].movedim(dim, -1)), int(out[0])))
    return along(out, dim, shape)


def _check_channels(node: fx.Node, labels: Tensor) -> None:
    """Refuse a linear map that mixes positions instead of channels, because its outputs are not new units."""
    rows, held = compact(labels).flatten(0, -2), pairs(labels)[0]
    if ((rows != rows.amax(0)) & (rows != NONE)).any() and len(held.unique()) < len(held):
        raise _lost(node, "over positions instead of channels")


def _shape(node: fx.Node) -> torch.Size:
    value = node.meta["val"]
    return (value if isinstance(value, Tensor) else value[0]).shape


def _lost(node: fx.Node, why: str) -> PxframeError:
    return PxframeError(
        f"phew cannot follow channels through the operation {node.target} {why} (node {node.name!r}); "
        f"use a scorer that makes no walks"
    )
