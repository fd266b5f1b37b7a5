"""What must hold after every round, and the errors when it does not."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from pxframe.base.errors import PxframeError, some
from pxframe.scoring.net import Net


def check_scores(scores: Mapping[str, Tensor], entries: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """Scores in the order of ``entries``, as the contract wants them: one an entry, of their shape, finite.

    Raises:
        PxframeError: naming ``where`` (scorer and round) and the layer.
    """
    for name, entry in entries.items():
        if name not in scores:
            raise PxframeError(f"{where}: no score for {name!r}")
        score = scores[name]
        if score.shape != entry.shape:
            raise PxframeError(
                f"{where}: the score of {name!r} has shape {tuple(score.shape)}, and should have {tuple(entry.shape)}"
            )
        if score.device != entry.device:
            raise PxframeError(f"{where}: the score of {name!r} is on {score.device}, its weight on {entry.device}")
        if not score.is_floating_point():
            raise PxframeError(f"{where}: the score of {name!r} is {score.dtype}, and should be floating-point")
    checked = {name: scores[name].detach() for name in entries}
    # One question to the device for all layers; amax hands on NaN.
    if not bool(torch.stack([torch.isfinite(s.abs().amax()) for s in checked.values() if s.numel()]).all()):
        for name, score in checked.items():
            bad = int((~torch.isfinite(score)).sum())
            if bad:
                raise PxframeError(f"{where}: {bad} of {score.numel()} scores of layer {name!r} are not finite")
    return checked


def emptied(masks: Mapping[str, Tensor]) -> list[str]:
    """Names of the layers with nothing kept."""
    return [name for name, mask in masks.items() if not mask.any()]


def check_connected(net: Net, inputs: Tensor, where: str) -> None:
    """Stop when no output of the masked network, in eval mode, depends on its input any more.

    Looks at the gradient by the input: it is exactly zero only when every path is cut, or closed by its gates on this
    input. So one of the user's samples is tried, and only if that fails more of them and random ones.

    Raises:
        PxframeError: naming the layers with nothing kept, or else those that no path goes through.
    """
    if not inputs.is_floating_point():
        return
    samples = inputs[:8].detach()
    if _gradients(net, samples[:1], [])[0]:
        return
    noise = torch.randn(samples.shape, generator=torch.Generator().manual_seed(0)).to(samples)
    reached: set[str] = set()
    for x in (samples, noise * samples.std(correction=0).clamp(min=1.0)):
        by_input, by_weight = _gradients(net, x, list(net.masks))
        if by_input:
            return
        reached |= by_weight
    empty = emptied(net.masks)
    cut = empty or [name for name in net.masks if name not in reached]
    what = "nothing is left of" if empty else "no path goes through"
    raise PxframeError(
        f"{where}: the network's output no longer depends on its input: {what} {some(cut)}; "
        f"ask for a lower sparsity, more rounds or another scorer"
    )


def _gradients(net: Net, x: Tensor, names: list[str]) -> tuple[bool, set[str]]:
    """Whether any output has a gradient by the input ``x``, and by which of the named weights' kept entries."""
    x = x.clone().requires_grad_()
    weights = net.masked()
    leaves = [weights[name].requires_grad_() for name in names]
    with torch.enable_grad(), net.evaluating():
        outputs = [t for t in pytree.tree_leaves(net(x, weights)) if isinstance(t, Tensor) and t.requires_grad]
        if not outputs:
            return False, set()
        # A mixture of the outputs: their plain sum may be constant (after a softmax, say).
        total = torch.stack(
            [(t * torch.linspace(0.5, 1.5, t.numel()).to(t).view(t.shape)).sum() for t in outputs]
        ).sum()
        by_input, *found = torch.autograd.grad(total, [x, *leaves], allow_unused=True)
    reached = {n for n, g in zip(names, found, strict=True) if g is not None and bool((g * net.masks[n]).any())}
    return by_input is not None and bool(by_input.any()), reached
