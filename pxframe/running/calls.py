"""Models that cannot be scored as they are, and models and losses that fail on the data: one line that says so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from pxframe.base.errors import PxframeError, some
from pxframe.running.inputs import described

Loss = Callable[[Any, Any], Tensor]


def refuse_wrapped(model: nn.Module) -> None:
    """Refuse models whose parameters are not there yet, or with a wrapped module inside.

    Raises:
        PxframeError: says what to pass instead.
    """
    lazy = [name for name, parameter in model.named_parameters() if is_lazy(parameter)]
    if lazy:
        raise PxframeError(f"{some(lazy)} has no shape yet: run one forward pass of the model first")
    for path, module in model.named_modules():  # the outermost wrappers have been taken off before
        if "_orig_mod" in module._modules:
            raise PxframeError(f"{path!r} is compiled (torch.compile); pass the original model, without it")
        if isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            raise PxframeError(f"{path!r} is wrapped in {type(module).__name__}; pass the original model, without it")


@contextmanager
def explaining_forward(inputs: Any) -> Iterator[None]:
    """Turn what a forward pass on ``inputs`` raises into one line. Running out of memory stays what it is."""
    try:
        yield
    except (PxframeError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # any module's forward
        cause = " ".join(str(error).split())[:200]
        one_value = "more than 1 value per channel" in cause  # batch norm in training mode
        advice = "give larger batches or images" if one_value else "check the batches' shape and dtype"
        if "keyword argument" in cause or "positional argument" in cause:
            advice = "a dict is given by name and a tuple by position; put a dict that is one argument into a tuple"
        raise PxframeError(
            f"the model fails on {described(inputs)}: {type(error).__name__}: {cause}; {advice}"
        ) from error


def explained_loss(given: Loss | None) -> Loss:
    """The loss that was given, or cross-entropy; its failure costs one line.

    Cross-entropy fails where outputs and targets do not belong together. A loss of the user's own may fail for any
    reason, so the line names it and what it raised.
    """

    def wrapped(output: Any, target: Any) -> Tensor:
        try:
            return (given or F.cross_entropy)(output, target)
        except (PxframeError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # of any function of the user
            shapes = [list(t.shape) if isinstance(t, Tensor) else type(t).__name__ for t in (output, target)]
            cause = " ".join(str(error).split())[:200]
            if given is None:
                raise PxframeError(
                    f"there is no loss of an output {shapes[0]} and targets {shapes[1]} ({cause}); pass loss= for such "
                    f"outputs, give targets of the network's own task, or take a scorer that reads none"
                ) from error
            function = getattr(given, "func", given)  # of a functools.partial
            name = getattr(function, "__qualname__", type(function).__qualname__)
            raise PxframeError(
                f"the loss {name} fails on an output {shapes[0]} and targets {shapes[1]}: "
                f"{type(error).__name__}: {cause}; mend it, give targets of the network's own task, or take a "
                f"scorer that reads none"
            ) from error

    return wrapped
