"""How the weights that only make a factor get a score: a factor shares the score of the paths that it multiplies.

Queries and keys, the layers of squeeze-excite and the gates of a SwiGLU carry no path, so they would all score 0.
Where factors share, a path's value stays what it is; only its score is divided. The product of a value m that carries
paths and a factor a is written as

    m * a / 2 + [m] * a / 2 * p / [p].

[.] holds a value constant, so the sum is m * a, and only the gradient changes. Half of the score goes on through m.
Half goes back through a, to each weight by its share of p, the path value of what a is made from. A softmax and ``exp``
hand p on, a sigmoid multiplies it by its gate. Where queries meet keys, p is the product of both path values, and each
gets one half of the half. So a head's queries and keys together score as much as its values, and the scores of a layer
that all paths run through still add up to R.

Where no path leads to an entry of a (p = 0), or none with a weight on it, m has all of the score. Where none leads to a
query, as to a class token's in the first block, the key has the query's part, and the other way round.

Divisors, and what normalises (1 / sigma), share nothing, in layer norms written out as in torch's own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Set
from typing import Any

from torch import fx

from pxframe.engine.factors.computed import find_computed
from pxframe.engine.factors.roles import FACTORS, Roles, find_roles, is_source, needed
from pxframe.engine.graph import Trace
from pxframe.engine.rules.table import RULES, SIGMOIDS, SOFTMAX, operation

#: Operations that make a factor which shares; what other operations make is recorded alone.
_SHARING = SOFTMAX | SIGMOIDS | {"exp"}
#: Operations that add up or choose between path values.
_SUMS = frozenset(("add", "sub", "rsub", "cat", "stack", "where", "maximum", "minimum"))


def sharing(trace: Trace) -> Trace:
    """The same graph, in which what a factor is made from has path values too; ``trace`` itself if nothing shares."""
    roles = find_roles(trace.nodes, trace.active, trace.outputs, trace.data)
    shared = _sharing_nodes(trace, _carrying(trace, roles))
    if not shared and not any(node in trace.carried for node in trace.paths):
        return trace  # nor does a product have sides that both have path values anyway
    paths = trace.paths | shared
    factors = needed(trace.nodes, trace.active, roles, [*trace.outputs, *shared])[1]
    own = {node: name for node, name in trace.tensors.items() if name in trace.parameters}
    moved, computed = find_computed(trace.nodes, trace.active, paths, own)
    weightless = _weightless(trace, {*moved, *computed})
    return dataclasses.replace(
        trace, paths=paths, factors=factors, moved=moved, computed=computed, shared=shared, weightless=weightless
    )


def _weightless(trace: Trace, weights: Set[fx.Node]) -> frozenset[fx.Node]:
    """The active nodes that no parameter has a part in."""
    found = set(trace.inputs)
    for node in trace.nodes:
        read = node.all_input_nodes
        if node in trace.active and not any(n in weights or (n in trace.active and n not in found) for n in read):
            found.add(node)
    return frozenset(found)


def _sharing_nodes(trace: Trace, carrying: Set[fx.Node]) -> frozenset[fx.Node]:
    """The nodes that factors of the paths are made from, as far as they can have a path value."""
    wanted: set[Any] = set()
    for node in reversed(trace.nodes):
        if node in trace.paths:
            read = {node.args[at] for at in FACTORS.get(operation(node), ())}
        elif node in wanted:
            read = set(node.all_input_nodes)
        else:
            continue
        divisor = node.args[1] if operation(node) == "div" else None
        wanted.update(n for n in read if n in carrying and n is not divisor)
    return frozenset(wanted - trace.paths - set(trace.inputs))


def _carrying(trace: Trace, roles: Roles) -> frozenset[fx.Node]:
    """The nodes that can have a path value."""
    found = {*trace.paths, *trace.starts}
    for node in trace.nodes:
        if node in found or node not in trace.active or operation(node) not in RULES:
            continue
        if is_source(node) and node not in roles.carried and operation(node) not in _SHARING:
            continue
        if operation(node) == "embedding" or any(n in found for n in _paths_from(node)):
            found.add(node)  # paths start at an embedding
    return frozenset(found)


def _paths_from(node: fx.Node) -> list[Any]:
    """The arguments of a node of which one with a path value gives the node one, too."""
    name = operation(node)
    if name in _SUMS:
        return node.all_input_nodes
    if name in FACTORS and name not in ("div", "convolution"):  # a divisor or a kernel alone gives none
        return [node.args[at] for at in FACTORS[name]]
    return node.all_input_nodes[:1]
