"""The refits that users name, and their options."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from torch import Tensor

from pxframe.base.errors import PxframeError, near
from pxframe.base.options import check_options, one_of, positive, whole_number
from pxframe.engine.reading import kept
from pxframe.network.net import Net
from pxframe.passes.batches import Batches
from pxframe.passes.sweep import check_squares
from pxframe.refits.fan_in import reinit, rescale
from pxframe.refits.norms import batch_statistics
from pxframe.refits.obs import least_squares
from pxframe.ticket.ticket import holds_network

_log = logging.getLogger(__name__)

Tensors = Mapping[str, Tensor]

#: ``"last"``: after the last round, for training to start from. ``"every"``: after each round, so that the next one
#: scores the refitted network. ``"between"``: after each round but the last; it helps to choose the mask, and training
#: starts from the model's own weights.
WHEN = ("last", "every", "between")


@dataclass(frozen=True)
class Refit:
    """Base of all refits; as it stands, nothing is changed."""

    #: What users call it.
    name: ClassVar[str] = "keep"
    #: Whether it reads the batches; the data must then be there.
    reads: ClassVar[bool] = False
    #: Whether it counts the outputs of a layer in the first dimension of its weight.
    outputs_first: ClassVar[bool] = False
    #: Whether it compares the pruned network with the model's own weights.
    fits_dense: ClassVar[bool] = False
    #: After which rounds, one of :data:`WHEN`.
    when = "last"

    def values(self, net: Net, data: Batches, tensors: Tensors, held: Tensors) -> dict[str, Tensor]:
        """The parameters and buffers to replace, by name.

        Args:
            net: the network at its final masks.
            tensors: the parameters and buffers that training would start from, pruned weights as they were.
            held: by name, bool tensors that are true where a weight must stay as it is.
        """
        return {}

    def check(self, net: Net, data: Batches) -> None:
        """Refuse, before any round of scoring, a network that this refit cannot be done for."""

    def check_start(self, net: Net, start: Tensors) -> None:
        """Refuse starting values that it cannot refit; default: none."""

    def describe(self) -> dict[str, Any]:
        """Name and options, for the ticket's provenance."""
        return {"type": self.name, **asdict(self)}


@dataclass(frozen=True)
class Rescale(Refit):
    """theta * sqrt(fan-in of the dense layer / fan-in that is left), so that the variance of a sum stays the same."""

    name: ClassVar[str] = "rescale"
    reads: ClassVar[bool] = True
    outputs_first: ClassVar[bool] = True

    def values(self, net: Net, data: Batches, tensors: Tensors, held: Tensors) -> dict[str, Tensor]:
        return _by_fan_in(rescale, net, data, tensors, held)


@dataclass(frozen=True)
class Reinit(Refit):
    """Draws the weights anew from N(0, 2 / fan-in that is left) (He et al. 2015, Eq. 10)."""

    name: ClassVar[str] = "reinit"
    reads: ClassVar[bool] = True
    outputs_first: ClassVar[bool] = True

    def values(self, net: Net, data: Batches, tensors: Tensors, held: Tensors) -> dict[str, Tensor]:
        return _by_fan_in(reinit, net, data, tensors, held)


@dataclass(frozen=True)
class BatchNorm(Refit):
    """Measures the statistics of batch norm anew on the batches. Weights stay as they are.

    It warns where that changes nothing, since no batch norm with running statistics was run.

    Args:
        when: one of :data:`WHEN`.
    """

    when: str = "last"

    name: ClassVar[str] = "bn"
    reads: ClassVar[bool] = True

    def __post_init__(self) -> None:
        one_of("refit 'bn'", "when", self.when, WHEN)

    def values(self, net: Net, data: Batches, tensors: Tensors, held: Tensors) -> dict[str, Tensor]:
        found = batch_statistics(net, data, _pruned(net, tensors))
        if not found:
            _log.warning(
                "refit 'bn': the network ran no batch norm with running statistics, so nothing was changed; "
                "refit='obs' gives its layers new weights"
            )
        return found


@dataclass(frozen=True)
class OBS(Refit):
    """The least-squares weights of each layer for its mask, then the statistics of batch norm; the best start.

    Args:
        damping: relative to the mean of the diagonal of each layer's Hessian.
        steps: of conjugate gradients in each layer, at most.
        sequential: a layer's inputs come from the pruned layers before it, else from the dense network.
        when: one of :data:`WHEN`. After the first round, the outputs to come close to are those of the round before.
    """

    damping: float = 0.01
    steps: int = 100
    sequential: bool = True
    when: str = "last"

    name: ClassVar[str] = "obs"
    reads: ClassVar[bool] = True
    fits_dense: ClassVar[bool] = True

    def __post_init__(self) -> None:
        one_of("refit 'obs'", "when", self.when, WHEN)
        positive("refit 'obs'", "damping", self.damping)
        whole_number("refit 'obs'", "steps", self.steps)

    def check(self, net: Net, data: Batches) -> None:
        check_squares(net, _first_inputs(data))

    def check_start(self, net: Net, start: Tensors) -> None:
        if holds_network(start, net.masks, net.parameters):
            raise PxframeError(
                "the starting values are those of a trained network, and 'obs' would fit it to the outputs of the "
                "model: take refit 'bn'"
            )

    def values(self, net: Net, data: Batches, tensors: Tensors, held: Tensors) -> dict[str, Tensor]:
        options = {key: value for key, value in asdict(self).items() if key != "when"}
        pruned = _pruned(net, tensors)
        weights = least_squares(net, data, pruned, held, **options)
        if not weights:
            _log.warning(
                "refit 'obs': no prunable weight is one side of a matrix product of its own, so none was changed; "
                "weights that are computed before use, such as normalised ones, are left alone"
            )
        return {**weights, **batch_statistics(net, data, {**pruned, **weights})}


REFITS: dict[str, type[Refit]] = {cls.name: cls for cls in (Refit, Rescale, Reinit, BatchNorm, OBS)}


def build_refit(config: str | Mapping[str, Any] | Refit) -> Refit:
    """``"bn"``, ``"obs"``, ..., or ``dict(type=..., **options)``.

    Raises:
        PxframeError: there is no such refit or option.
    """
    if isinstance(config, Refit):
        return config
    options = {"type": config} if isinstance(config, str) else dict(config)
    name = options.pop("type", None)
    if name not in REFITS:
        raise PxframeError(f"there is no refit {name!r}{near(str(name), REFITS)}")
    check_options(REFITS[name], options, f"refit {name!r}")
    return REFITS[name](**options)


def _pruned(net: Net, tensors: Tensors) -> dict[str, Tensor]:
    return {**tensors, **{n: tensors[n] * kept(mask, tensors[n].dtype) for n, mask in net.masks.items()}}


def _first_inputs(data: Batches) -> Any:
    first = data.first()
    assert first is not None  # the core asks for data
    return first[0]


def _by_fan_in(
    function: Callable[[Net, Any, Tensors], dict[str, Tensor]],
    net: Net,
    data: Batches,
    tensors: Tensors,
    held: Tensors,
) -> dict[str, Tensor]:
    found = function(net, _first_inputs(data), {name: tensors[name] for name in net.masks})
    return {n: w.where(~held[n], tensors[n]) if n in held else w for n, w in found.items()}
