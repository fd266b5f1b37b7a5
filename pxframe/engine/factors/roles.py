"""What each node is to a path network: a value that paths lead through, or a factor that only multiplies them.

A *factor* depends on the input and carries no path, in the whole network (see ``factors.py``). Where two values that
carry paths are multiplied, one of them is *recorded* in this product: it multiplies as a factor does, and the paths run
through the other. The first of these rules that applies says which one:

1. A divisor is recorded, and so is the kernel of a convolution.
2. In an elementwise product the side that is broadcast over the other is recorded: it was pooled, as the weights of
   squeeze-excite are.
3. If one side has just been through an activation and the other has not, it is a gate, and is recorded: in SwiGLU,
   silu(a) * b, paths run through b; in linear attention, relu(q) (relu(k)^T v), through v.
4. Otherwise no side stands out. The paths run through both, and each side counts one half of the other as its factor,
   so that the paths still add up to the product.
"""

from __future__ import annotations

from collections.abc import Set
from typing import NamedTuple, cast

from torch import fx

from pxframe.engine.rules.shapes import MOVES, SAME
from pxframe.engine.rules.table import ACTIVATIONS, PRODUCTS, SIGMOIDS, SOFTMAX, operation

#: Arguments that only say where the first argument is read, and how much of it counts: recorded, never a path.
RECORDED = {"grid_sampler_2d": (1,), "deform_conv2d": (1, 2, 3)}
#: Operations on an activation that make a factor: gates first, then what normalisations written out divide by.
_SOURCES = (
    SOFTMAX
    | SIGMOIDS
    | {"exp", "log", "cos", "sin", "sign"}
    | {"sqrt", "rsqrt", "reciprocal", "var", "std", "var_mean", "linalg_vector_norm", "norm"}
    | {"gt", "ge", "lt", "le", "eq", "ne", "isnan", "isinf", "argmax", "argmin"}
)
#: Positions of the two factors of a product of values; of "div", the dividend and the divisor.
FACTORS = {**PRODUCTS, "mul": (0, 1), "div": (0, 1), "addcmul": (1, 2)}
#: Operations that leave an activation an activation: moving values, scaling and shifting them by constants.
_KEEPING = MOVES | SAME | {"getitem", "mul", "div", "add", "sub", "neg"}


class Roles(NamedTuple):
    """Attributes:
    factors: the nodes that depend on the input and carry no path.
    carried: product of two values that carry paths -> the positions of the arguments that paths run through in it.
    """

    factors: frozenset[fx.Node]
    carried: dict[fx.Node, tuple[int, ...]]


def find_roles(nodes: list[fx.Node], active: Set[fx.Node], outputs: list[fx.Node], data: Set[fx.Node]) -> Roles:
    """The roles of the nodes among ``active``, which are those that depend on the input.

    A sigmoid makes a factor; but where what it makes is added to an activation, or is all that the model gives, it is
    an activation like any other, and carries. All of ``data`` are factors.
    """
    carrying: set[fx.Node] = set()
    while True:
        roles = _assign(nodes, active, carrying, data)
        lost = [n for n in outputs if n in roles.factors] if all(n in roles.factors for n in outputs) else []
        for node in active - roles.factors:
            if operation(node) not in FACTORS and operation(node) not in RECORDED:
                lost += [n for n in node.all_input_nodes if n in roles.factors and n not in data]
        behind = _sources(lost, active) - carrying
        if not behind:
            return roles
        carrying |= behind


def _assign(nodes: list[fx.Node], active: Set[fx.Node], carrying: Set[fx.Node], data: Set[fx.Node]) -> Roles:
    factors: set[fx.Node] = set(data)
    carried: dict[fx.Node, tuple[int, ...]] = {}
    for node in nodes:
        if node not in active or node in data or (operation(node) == "embedding" and node.args[1] in data):
            continue
        makes_factor = is_source(node) and node not in carrying
        if makes_factor or all(n in factors for n in node.all_input_nodes if n in active):
            factors.add(node)
            continue
        if operation(node) in RECORDED:
            if node.args[0] not in active or node.args[0] in factors:
                factors.add(node)
            continue
        first, second = FACTORS.get(operation(node), (None, None))
        if first is None or second is None:
            continue
        leads = [at for at in (first, second) if node.args[at] in active and node.args[at] not in factors]
        if operation(node) == "div" and leads == [second]:
            factors.add(node)  # one over an activation
        elif len(leads) == 2:
            carried[node] = _carriers(node, first, second, active)
    return Roles(frozenset(factors), carried)


def _sources(factors: list[fx.Node], active: Set[fx.Node]) -> set[fx.Node]:
    """The sigmoids and the like that ``factors`` are computed from, up to the nearest."""
    found, seen, queue = set(), set(factors), list(factors)
    while queue:
        node = queue.pop()
        if operation(node) in SIGMOIDS:
            found.add(node)
        elif not is_source(node):
            new = [n for n in node.all_input_nodes if n in active and n not in seen]
            seen.update(new)
            queue += new
    return found


def is_source(node: fx.Node) -> bool:
    """Whether a node makes a factor of whatever it is given."""
    if operation(node) == "pow":  # a root or one over a power; a power is a product of values
        exponent = node.args[1]
        return not isinstance(exponent, (int, float)) or exponent < 1
    return operation(node) in _SOURCES


def needed(
    nodes: list[fx.Node], active: Set[fx.Node], roles: Roles, outputs: list[fx.Node]
) -> tuple[frozenset[fx.Node], frozenset[fx.Node]]:
    """The nodes whose path values, and the factors whose values, a path network needs to reach ``outputs``."""
    wanted = set(outputs)
    for node in reversed(nodes):
        if node not in wanted:
            continue
        sources = {n for n in node.all_input_nodes if n in active}
        if node in roles.factors and (is_source(node) or not sources <= roles.factors):
            continue  # open, it is 1 (a softmax: uniform), whatever it is made from
        recorded = {node.args[at] for at in FACTORS.get(operation(node), ())} if node in roles.carried else set()
        through = {node.args[at] for at in roles.carried.get(node, ())}
        if operation(node) in RECORDED:
            recorded, through = {node.args[at] for at in RECORDED[operation(node)]}, {node.args[0]}
        wanted.update(n for n in sources if n not in recorded or n in through)
    factors = frozenset(wanted & roles.factors)
    return frozenset(wanted) - factors, factors


def _carriers(node: fx.Node, first: int, second: int, active: Set[fx.Node]) -> tuple[int, ...]:
    """The positions that paths run through in a product of two values that carry paths."""
    one, other = cast(fx.Node, node.args[first]), cast(fx.Node, node.args[second])
    name = operation(node)
    if name == "div" or one is other:
        return (first,)
    if name == "convolution":
        return (0,)
    if name in ("mul", "addcmul"):
        sizes = one.meta["val"].numel(), other.meta["val"].numel()
        if sizes[0] != sizes[1]:
            return (first if sizes[0] > sizes[1] else second,)
    is_gate = _activated(one, active), _activated(other, active)
    if is_gate[0] != is_gate[1]:
        return (second if is_gate[0] else first,)
    return (first, second)


def _activated(node: fx.Node, active: Set[fx.Node]) -> bool:
    """Whether the last operation that computed ``node`` was an activation; moving and scaling values count for none."""
    while True:
        name, inputs = operation(node), [n for n in node.all_input_nodes if n in active]
        if name in ACTIVATIONS or name in SIGMOIDS:
            return True
        if len(inputs) != 1 or name not in _KEEPING:
            return False
        node = inputs[0]
