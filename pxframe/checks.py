"""What must hold after every round, and the errors when it does not."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from pxframe.errors import PxframeError, some
from pxframe.net import Net


def check_scores(scores: Mapping[str, Tensor], net: Net, where: str) -> dict[str, Tensor]:
    """Scores in the net's order, as the contract wants them: one a weight, of its shape, finite.

    Raises:
        PxframeError: naming ``where`` (scorer and round) and the layer.
    """
    for name, weight in net.weights.items():
        if name not in scores:
            raise PxframeError(f"{where}: no score for {name!r}")
        score = scores[name]
        if score.shape != weight.shape:
            shapes = f"{tuple(score.shape)}, its weight {tuple(weight.shape)}"
            raise PxframeError(f"{where}: the score of {name!r} has shape {shapes}")
        if not torch.isfinite(score).all():
            bad = int((~torch.isfinite(score)).sum())
            raise PxframeError(f"{where}: {bad} of {score.numel()} scores of layer {name!r} are not finite")
    return {name: scores[name].detach() for name in net.weights}


def emptied(masks: Mapping[str, Tensor]) -> list[str]:
    """Names of the layers with nothing kept."""
    return [name for name, mask in masks.items() if not mask.any()]


def check_connected(net: Net, inputs: Tensor, where: str) -> None:
    """Stop when no output of the masked network, in eval mode, depends on its input any more.

    Looks at the gradient by the input: it is exactly zero only when every path is cut. A few of the user's samples and
    as many random ones are tried, for a path may be closed by its gates on one input and open on another.

    Raises:
        PxframeError: naming the layers with nothing kept, or else the first layer that no gradient reaches.
    """
    samples = inputs[:8].detach()
    if not samples.is_floating_point():
        return
    reached: set[str] = set()
    noise = torch.randn(samples.shape, generator=torch.Generator().manual_seed(0)).to(samples)
    for x in (samples, noise * samples.std().clamp(min=1.0)):
        x = x.clone().requires_grad_()
        weights = {name: w.requires_grad_() for name, w in net.masked().items()}
        with torch.enable_grad(), net.evaluating():
            leaves = [t for t in pytree.tree_leaves(net(x, weights)) if isinstance(t, Tensor) and t.requires_grad]
            if not leaves:
                continue
            # A fixed mixture of the outputs: their plain sum may be constant (after a softmax, say).
            total = sum((t * torch.linspace(0.5, 1.5, t.numel()).to(t).view(t.shape)).sum() for t in leaves)
            found = torch.autograd.grad(total, [x, *weights.values()], allow_unused=True)  # type: ignore[list-item]
        if found[0] is not None and bool(found[0].any()):
            return
        reached |= {n for n, g, m in zip(weights, found[1:], net.masks.values(), strict=True) if g is not None and (g * m).any()}
    empty = emptied(net.masks)
    cut = empty or [name for name in net.masks if name not in reached]
    what = "nothing is left of" if empty else "no path goes through"
    raise PxframeError(
        f"{where}: the network's output no longer depends on its input: {what} {some(cut)}; "
        f"ask for a lower sparsity, more rounds or another scorer"
    )
