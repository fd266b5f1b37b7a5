"""How the weights that only make a factor get a score: a factor shares the score of the paths that it multiplies.

Queries and keys, the layers of squeeze-excite and the gates of a SwiGLU carry no path, so they all score 0. Where
factors share, a path's value stays what it is; only its score is divided. At each product of a value m that carries
paths with a factor a, one half of the score goes on through m. The other half goes back through what a is made from, to
each of its weights by its share of the paths to that entry of a:

    m * a = m * a / 2 + [m] * a / 2 * p / [p].

[.] is the same value held constant, and p is the path value of a, computed by the rules of the reading, with a softmax
or sigmoid passing on what it is given. In the product of queries and keys both sides carry, and p is their product. So
a head's queries and keys together score as much as its values: one quarter of what its paths carry each, and one half.
The scores of a layer through which all paths run still add up to R.

Divisors, and what normalises (1 / sigma), share nothing, in layer norms written out as in torch's own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Set
from typing import Any

from torch import fx

from pxframe.engine.computed import find_computed
from pxframe.engine.graph import Trace
from pxframe.engine.roles import FACTORS, SOFTMAX, Roles, find_roles, is_source, needed
from pxframe.engine.rules.table import RULES, SIGMOIDS, operation

#: Operations that make a factor which shares; what other operations make is recorded alone.
_SHARING = SOFTMAX | SIGMOIDS | {"exp"}
#: Operations that have a path value if any one of their arguments has; others need it of the first.
_ANY = frozenset(("add", "sub", "rsub", "cat", "stack", "where", "maximum", "minimum"))


def sharing(trace: Trace) -> Trace:
    """The same graph, in which what a factor is made from has path values too; ``trace`` itself if nothing shares."""
    roles = find_roles(trace.nodes, trace.active, trace.outputs, trace.data)
    shared = _sharing_nodes(trace, _carrying(trace, roles))
    if not shared and not any(node in trace.carried for node in trace.paths):
        return trace
    paths = trace.paths | shared
    factors = needed(trace.nodes, trace.active, roles, [*trace.outputs, *shared])[1]
    own = {node: name for node, name in trace.tensors.items() if name in trace.parameters}
    moved, computed = find_computed(trace.nodes, trace.active, paths, own)
    return dataclasses.replace(trace, paths=paths, factors=factors, moved=moved, computed=computed, shared=shared)


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
    found = set(trace.paths)
    found.update(set(trace.starts) - trace.data)
    for node in trace.nodes:
        if node in found or node not in trace.active or operation(node) not in RULES:
            continue
        if is_source(node) and node not in roles.carried and operation(node) not in _SHARING:
            continue
        inputs: list[Any] = [a for a in node.args if isinstance(a, fx.Node)]
        sides = FACTORS.get(operation(node))
        if operation(node) in _ANY:
            inputs = node.all_input_nodes
        elif sides and operation(node) not in ("div", "convolution"):
            inputs = [node.args[at] for at in sides]
        else:
            inputs = inputs[:1]
        if any(n in found for n in inputs):
            found.add(node)
    return frozenset(found)
