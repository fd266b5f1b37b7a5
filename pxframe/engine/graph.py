"""The graph of a traced model: its nodes, and which of them carry paths or factors."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, fx


@dataclass(frozen=True)
class Trace:
    """A functional (no operation in place) aten graph of a model in eval mode.

    Attributes:
        nodes: in execution order, without placeholders and output.
        tensors: placeholder name -> name of the parameter or buffer it stands for.
        parameters: the names among those that are parameters.
        moved: node that is a parameter, or a part or another layout of one -> the parameter's name.
        computed: the other nodes that are computed from parameters alone, for nodes in ``paths`` (see ``computed``).
        constants: name of a ``get_attr`` node's target -> tensor, on the device of the input.
        inputs: the nodes of the model's inputs, in the order of :func:`pxframe.running.inputs.leaves`.
        given: those among them that a reading is given a value for.
        data: inputs of integers, and the nodes that depend on them alone. They are factors; in a sum they are a bias.
        outputs: nodes of the floating-point output tensors that carry paths (see ``factors``).
        active: nodes whose value depends on the input.
        paths: the active nodes whose path value some output needs. Nodes that only form a factor are not among them.
        factors: the active nodes that multiply path values and carry no path themselves.
        shared: None: factors are recorded. Else they share the score of the paths that they multiply, and these are the
            nodes that have a path value for that alone (see ``sharing``); none, where only sides of products share.
        weightless: where factors share, the nodes that no parameter has a part in, such as an attention mask that is an
            input. There is no weight to take their share.
        carried: product of two values that carry paths -> the positions of the arguments that paths run through in it
            (see ``roles``).
        last_use: node -> nodes whose values no later node reads.
        reuse: node that may be computed in place -> position of the argument to write over.
        tables: what rules compute once and keep, such as the matrices of an interpolation, by keys of their own.
    """

    nodes: list[fx.Node]
    tensors: dict[fx.Node, str]
    parameters: frozenset[str]
    moved: dict[fx.Node, str]
    computed: frozenset[fx.Node]
    constants: dict[str, Tensor]
    inputs: tuple[fx.Node, ...]
    given: tuple[fx.Node, ...]
    data: frozenset[fx.Node]
    outputs: list[fx.Node]
    active: frozenset[fx.Node]
    paths: frozenset[fx.Node]
    factors: frozenset[fx.Node]
    carried: dict[fx.Node, tuple[int, ...]]
    last_use: dict[fx.Node, list[fx.Node]]
    reuse: dict[fx.Node, int]
    shared: frozenset[fx.Node] | None = None
    weightless: frozenset[fx.Node] = frozenset()
    tables: dict[Any, Any] = field(default_factory=dict)

    @property
    def starts(self) -> list[fx.Node]:
        """The inputs that paths start at."""
        return [node for node in self.given if node not in self.data]

    def parameter(self, node: Any) -> str | None:
        """Name of the parameter that a node is made from, or None. It may have been transposed or split before use.

        Only the first argument of each operation is followed, because that is the one that such an operation moves.
        """
        while isinstance(node, fx.Node):
            if node in self.tensors:
                name = self.tensors[node]
                return name if name in self.parameters else None
            if node in self.active or not node.all_input_nodes:
                return None
            node = node.all_input_nodes[0]
        return None
