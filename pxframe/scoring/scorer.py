"""What a pruning method is: one short class that gives every prunable weight a score."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Literal

from torch import Tensor

from pxframe.network.net import Net
from pxframe.network.ties import joined

Needs = Literal["nothing", "inputs", "labels", "training"]


class Scorer:
    """Base of all scorers. Options are constructor arguments, kept as public attributes (a dataclass does both).

    A scorer sees the model as a function of its weights (:class:`pxframe.network.net.Net`), never changes it, and
    knows nothing of thresholds, schedules, files or tasks: the core's loop has those.
    """

    #: The name it is registered under.
    name: ClassVar[str] = ""
    #: What it reads: nothing, inputs only, inputs and labels, or whole training runs.
    needs: ClassVar[Needs] = "inputs"
    #: Rounds of scoring and masking when the user asks for no number.
    rounds: ClassVar[int] = 1
    #: True when weights pruned in an earlier round may return.
    revives: ClassVar[bool] = False
    #: Whether the scores of different layers are in one unit, so that one threshold over all of them means something.
    comparable: ClassVar[bool] = True
    #: Further distributions whose versions the results depend on, e.g. ``("timm",)``.
    packages: ClassVar[tuple[str, ...]] = ()
    #: Settings of :func:`pxframe.prune` when the user gives none: any of ``sparsity``, ``rounds``, ``schedule``,
    #: ``scope``, ``distribution``, ``granularity`` and ``exclude``.
    defaults: ClassVar[Mapping[str, Any]] = MappingProxyType({})

    def score(self, net: Net, batches: Iterable[tuple[Any, Any]]) -> dict[str, Tensor]:
        """A score per prunable weight, higher is kept.

        Args:
            net: the model at the current masks.
            batches: ``(inputs, targets)`` pairs on the model's device; may be read any number of times. ``inputs`` is
                a tensor, or a tuple or dict of what the model is given; ``net(inputs)`` calls the model.

        Returns:
            a tensor for each of ``net.weights``, of its shape, finite.
        """
        raise NotImplementedError

    def score_channels(self, net: Net, batches: Iterable[tuple[Any, Any]]) -> dict[str, Tensor]:
        """A score per output channel, for pruning whole channels: the sum of its weights' scores.

        A scorer with a formula of its own for a mask entry per channel overrides this.

        Returns:
            a tensor ``[weight.shape[0]]`` for each of ``net.weights``, finite.
        """
        return {name: score.flatten(1).sum(1) for name, score in self.score(net, batches).items()}

    def score_groups(self, net: Net, batches: Iterable[tuple[Any, Any]]) -> dict[str, Tensor]:
        """A score per mask entry on all channels that go together, for ``groups="entry"``: the sum of their scores.

        ``net.ties`` says which channels these are. A scorer with a formula of its own for such an entry overrides this.

        Returns:
            a tensor ``[channels]`` for each group of ``net.ties``, finite.
        """
        return joined(net.ties, self.score_channels(net, batches))

    def restart(self, net: Net) -> dict[str, Tensor] | None:
        """Values that training of the ticket is to start from, after the last round; None: the model's own.

        Returns:
            tensors for any of the model's parameters and buffers, by name.
        """
        return None

    def options(self) -> dict[str, Any]:
        """The options it was built with, for the ticket's provenance."""
        return {k: v for k, v in sorted(vars(self).items()) if not k.startswith("_")}
