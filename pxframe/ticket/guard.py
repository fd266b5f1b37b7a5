"""Keeping pruned weights out of training: their values and their gradients are zero."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from pxframe.base.errors import PxframeError, some
from pxframe.ticket.pruned import Pruned

# Where weight, gradient and state are 0, a step of these leaves 0. Exact types: a subclass may do anything.
_ELEMENTWISE = (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop)


class Guard:
    """A guard in force. It ends with :meth:`remove`, or with the block of ``with guard(...):``."""

    def __init__(self) -> None:
        self._handles: list[Any] = []

    def remove(self) -> None:
        """Remove every hook from the optimizer and from the weights."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def __enter__(self) -> Guard:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


def guard(optimizer: Any, weights: Iterable[tuple[str, Tensor, Tensor]]) -> Guard:
    """Train ``weights`` as if their pruned entries did not exist.

    Gradients of pruned entries are set to zero as soon as a backward pass has accumulated them, and before the step
    where something wrote to them in between. Pruned entries are zero after every step. Both hold for NaN and infinite
    gradients too, and with clipping, gradient scaling, gradient accumulation and ``DistributedDataParallel``.

    Kept entries are then trained exactly as in a network that computes with ``weight * mask``, by every optimizer that
    starts without state from before. How this compares with a smaller network that lacks the pruned entries:

    * SGD, Adam, AdamW, RMSprop and other element-wise rules, LBFGS, ``clip_grad_norm_`` and LARS: the same.
    * Muon: the same if whole rows or columns are pruned, but for the factor that its ``adjust_lr_fn`` takes from the
      shape of the dense matrix. Scattered masks have no smaller matrix to compare with.
    * Adafactor: it averages over all entries of a matrix. If whole rows or columns are pruned, its root mean squares
      of weight and update are those of the smaller matrix times the root of the density, and so is its step.

    Memory: one byte per weight, on the weight's device; a weight with nothing pruned costs nothing. Time: one pass
    over each gradient, and a second one if clipping, unscaling or anything else wrote to it before the step. The pass
    over the weights after a step is left out where it cannot be needed: for SGD, Adam, AdamW and RMSprop, unless
    something else wrote to the weights. Writes through ``.data`` cannot be noticed. For these four optimizers the
    state of pruned entries (momentum) is set to zero as well. Nothing of it makes a GPU wait. Attach the guard before a
    CUDA graph is captured, and after a step of warm-up; removing it does not change a captured graph.

    Args:
        optimizer: a torch optimizer that holds at least one of the weights, or a wrapper that holds such an optimizer
            as ``.optimizer`` (accelerate, Lightning, mmengine).
        weights: triples of name (for messages), parameter, and bool mask of its shape, true where kept.

    Returns:
        A handle; ``handle.remove()``, or leaving ``with handle:``, ends the guard.

    Raises:
        PxframeError: a pruned entry is not zero now, a weight is sharded, or the optimizer cannot be guarded or holds
            none of the weights.
    """
    weights = list(weights)
    inner = _hookable(optimizer)
    used = {id(p) for group in inner.param_groups for p in group["params"]}
    if not any(id(weight) in used for _, weight, _ in weights):
        raise PxframeError(
            "the optimizer holds none of the ticket's weights; pass the optimizer that was built from this model"
        )
    elsewhere = [name for name, weight, _ in weights if weight.requires_grad and id(weight) not in used]
    if elsewhere:
        warnings.warn(
            f"the optimizer does not hold {some(elsewhere)}: if another one trains these weights, guard that one too",
            stacklevel=3,
        )
    sharded = [name for name, weight, _ in weights if hasattr(weight, "full_tensor")]
    if sharded:
        raise PxframeError(f"guard cannot keep sharded weights (DTensor): {some(sharded)}; use DistributedDataParallel")
    alive = [name for name, weight, mask in weights if _is_alive(weight, mask)]
    if alive:
        raise PxframeError(
            f"pruned weights are not zero in {some(alive)}; apply the ticket first: ticket.apply(model), then guard"
        )
    masks: dict[Tensor, Tensor] = {}
    for _, weight, mask in weights:  # one weight may have two names
        masks[weight] = masks[weight] & mask if weight in masks else mask
    trainable = {w: m for w, m in masks.items() if not m.all() and (w.is_floating_point() or w.is_complex())}
    return _attach(inner, [_Held(weight, mask) for weight, mask in trainable.items()])


class _Held:
    """A weight whose pruned entries were zero when its version was ``version``."""

    def __init__(self, weight: Tensor, mask: Tensor) -> None:
        self.weight, self.pruned = weight, Pruned(weight, mask)
        self.version = weight._version
        self.needs_zeroing = True

    def before_step(self, eps: float) -> None:
        """Zero the pruned gradients. Then a step that adds ``eps`` to its divisors leaves zeros at zero, unless ``eps``
        is 0 or may be rounded to it, as in float16: 0 / (0 + 0) is NaN."""
        gradient_is_zero = self.pruned.zero_gradient(self.weight)
        is_zero = self.weight._version == self.version
        self.needs_zeroing = not (gradient_is_zero and is_zero and eps >= torch.finfo(self.weight.dtype).tiny)

    def after_step(self) -> None:
        if self.needs_zeroing:
            self.pruned.follow(self.weight)
            self.pruned.zero(self.weight)
        self.version = self.weight._version
        self.pruned.forget_gradient()


def _attach(optimizer: Optimizer, held: list[_Held]) -> Guard:
    """Register the hooks of a guard."""
    # Two parameters in one memory have versions of their own: a write to one does not show in the other.
    storages = Counter(p.untyped_storage().data_ptr() for group in optimizer.param_groups for p in group["params"])
    is_shared = any(storages[one.weight.untyped_storage().data_ptr()] > 1 for one in held)
    is_plain = type(optimizer) in _ELEMENTWISE and not is_shared

    def before_step(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        groups = optimizer.param_groups
        has_closure = any(value is not None for value in (*args[1:], *kwargs.values()))  # args begin with the optimizer
        # A capturable Adam divides by the learning rate: at 0, in a warm-up, zero entries become NaN.
        is_trusted = is_plain and not has_closure and not any(group.get("capturable") for group in groups)
        eps = min(float(group.get("eps", 1)) for group in groups) if is_trusted else 0.0
        for one in held:
            one.before_step(eps)

    def after_step(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        for one in held:
            one.after_step()

    def zero_state(optimizer: Optimizer) -> None:
        for one in held if is_plain else ():
            one.pruned.follow(one.weight)
            for value in optimizer.state.get(one.weight, {}).values():
                if isinstance(value, Tensor) and value.shape == one.weight.shape:
                    one.pruned.zero(value)

    zero_state(optimizer)
    handle = Guard()
    handle._handles += [_hook_gradient(one.weight, one.pruned) for one in held]
    handle._handles += [
        optimizer.register_step_pre_hook(before_step),
        optimizer.register_step_post_hook(after_step),
        optimizer.register_load_state_dict_post_hook(zero_state),
    ]
    return handle


def _hook_gradient(weight: Tensor, pruned: Pruned) -> Any:
    """Zero the pruned gradients of ``weight`` while they are still in the cache, and before anything clips them."""

    def zero(weight: Tensor) -> None:
        pruned.zero_gradient(weight)

    requires_grad = weight.requires_grad
    try:
        weight.requires_grad_(True)  # torch refuses the hook otherwise; a frozen weight may be trained later
        return weight.register_post_accumulate_grad_hook(zero)
    finally:
        weight.requires_grad_(requires_grad)


def _hookable(optimizer: Any) -> Optimizer:
    """The optimizer itself, or the one inside a wrapper, that runs step hooks."""
    inner = optimizer
    while not _runs_hooks(inner) and getattr(inner, "optimizer", None) is not None:
        inner = inner.optimizer
    if isinstance(inner, Optimizer) and not _runs_hooks(inner):
        raise PxframeError(
            f"guard cannot watch {type(inner).__name__}, which runs no step hooks; pass the torch optimizer inside it"
        )
    if not isinstance(inner, Optimizer):
        raise PxframeError(f"guard needs a torch.optim.Optimizer, got {type(optimizer).__name__}")
    return inner


def _runs_hooks(optimizer: Any) -> bool:
    # A wrapper may subclass Optimizer and skip its __init__, which is where torch makes step() run hooks.
    return hasattr(optimizer, "_optimizer_step_post_hooks") and bool(getattr(type(optimizer).step, "hooked", False))


def _is_alive(weight: Tensor, mask: Tensor) -> bool:
    """Whether a pruned entry differs from zero; NaN does."""
    return bool(((weight.detach() != 0) & ~mask.to(weight.device)).any())
