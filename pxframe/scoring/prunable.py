"""Which parameters can be pruned: weights of convolutions and linear maps, found by parameter."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor, nn

from pxframe.base.errors import PxframeError, near, some
from pxframe.running.calls import refuse_wrapped
from pxframe.scoring.watch import multiplied_parameters

_RECURRENT = ("weight_ih*", "weight_hh*", "weight_hr*")
#: Layer classes whose weights are known to be linear maps, with patterns of those weights' names.
_MAPS: tuple[tuple[type, tuple[str, ...]], ...] = (
    (nn.modules.conv._ConvNd, ("weight",)),
    (nn.Linear, ("weight",)),
    (nn.MultiheadAttention, ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")),
    (nn.RNNBase, _RECURRENT),
    (nn.RNNCellBase, _RECURRENT),
)
#: Layer classes whose weights are no linear map where they are used by these layers alone.
_NOT_MAPS = (nn.Embedding, nn.EmbeddingBag, nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)


def prunable(model: nn.Module, example: Any = None, exclude: Iterable[str] = ()) -> list[str]:
    """Names of the prunable parameters, in the model's order.

    A real parameter with two or more dimensions is prunable when it is the weight of a convolution, linear map or
    recurrent layer. For the layer classes of torch that is known. Any other parameter is watched in one forward pass
    on ``example``: it counts when a convolution or matrix product multiplies the data by it, or by a kernel of its size
    that is computed from parameters alone. So of a weight-normalised layer the direction is prunable and the gain is
    not; a projection is, and a position embedding is not.

    Args:
        exclude: names, or patterns with wildcards (``"head.*"``), to leave out.

    Raises:
        PxframeError: a pattern that matches nothing, a parameter that cannot be judged without data, a model that is
            lazy or wrapped, or nothing left to prune.
    """
    refuse_wrapped(model)
    exclude = tuple(exclude)
    parameters = dict(model.named_parameters())
    for pattern in exclude:
        if not any(fnmatchcase(name, pattern) for name in parameters):
            rows = " (rows of a fused weight are [q], [k] and [v])" if pattern.endswith("]") else ""
            raise PxframeError(f"exclude: no parameter is called {pattern!r}{rows}{near(pattern, parameters)}")
    candidates = {
        name: parameter
        for name, parameter in parameters.items()
        if parameter.ndim >= 2 and parameter.is_floating_point() and not _excluded(name, exclude)
    }
    maps, others = _known(model)
    found = {name for name, parameter in candidates.items() if id(parameter) in maps}
    watched = {name: parameter for name, parameter in candidates.items() if name not in found}
    unclear = [name for name, parameter in watched.items() if id(parameter) not in others]
    if example is not None and watched:
        found |= multiplied_parameters(model, watched, example)
    elif unclear:
        raise PxframeError(
            f"cannot tell without data whether {some(unclear)} is the weight of a linear map; "
            f"pass batches (one is enough) or exclude it"
        )
    names = [name for name in parameters if name in found]
    if not names:
        raise PxframeError("the model has no prunable weight (of a convolution or linear map) left to prune")
    return names


def left_dense(model: nn.Module, names: Iterable[str], exclude: Iterable[str] = ()) -> list[str]:
    """Parameters that pruning passes over although nobody excluded them: neither in ``names`` nor in ``exclude``.

    Parameters with two or more dimensions are listed: embeddings, for example, position embeddings, class tokens
    ``[1, 1, C]`` and complex weights. Biases and gains are not, in whatever shape: ``[C]``, or ``[C, 1, 1]`` and
    ``[1, C, 1, 1]``, one number a channel.
    """
    names, exclude = set(names), tuple(exclude)
    return [
        name
        for name, parameter in model.named_parameters()
        if parameter.ndim >= 2 and not _is_gain(parameter) and name not in names and not _excluded(name, exclude)
    ]


def _is_gain(parameter: Tensor) -> bool:
    """Whether the shape is one number a channel, and the same for all that comes after the channel."""
    return parameter.shape[-1] == 1 and sum(size > 1 for size in parameter.shape) <= 1


def _excluded(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _known(model: nn.Module) -> tuple[set[int], set[int]]:
    """Ids of the parameters that some layer is known to multiply by, and of those that layers use in other ways."""
    maps, others = set(), set()
    for module in model.modules():
        for leaf, parameter in module.named_parameters(recurse=False):
            if any(isinstance(module, cls) and _excluded(leaf, leaves) for cls, leaves in _MAPS):
                maps.add(id(parameter))
            elif isinstance(module, _NOT_MAPS):
                others.add(id(parameter))
    return maps, others
