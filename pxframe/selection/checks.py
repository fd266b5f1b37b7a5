"""What must hold before a prune and after every round, and the messages when it does not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pxframe.base.errors import PxframeError, some
from pxframe.network.net import Net
from pxframe.running.inputs import dtype_of, few, leaves, mapped, noise_like, starting_tensors
from pxframe.scoring.flops import inputs_first
from pxframe.selection.threshold import comparable, counts, reaches
from pxframe.ticket.ticket import Ticket

_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def check_scores(scores: Any, entries: Mapping[str, Tensor], where: str, of: str = "net.weights") -> dict[str, Tensor]:
    """Return the scores in the order of ``entries``: one for each entry, of its shape and on its device, all finite.

    Args:
        where: the scorer, and the round.
        of: what of the net names the entries.

    Raises:
        PxframeError: names ``where`` and the layer.
    """
    if not isinstance(scores, Mapping):
        raise PxframeError(f"{where}: scores must be a dict of tensors by parameter name, got {type(scores).__name__}")
    for name, entry in entries.items():
        if name not in scores:
            raise PxframeError(f"{where}: no score for {name!r}; give one tensor for each of {of}")
        _check_score(scores[name], entry, f"{where}: the score of {name!r}")
    checked = {name: scores[name].detach() for name in entries}
    # One question to the device for all layers. A sum is not finite if any score is not, and may overflow by itself.
    if not bool(torch.isfinite(torch.stack([s.sum() for s in checked.values()])).all()):
        for name, score in checked.items():
            bad = int((~torch.isfinite(score)).sum())
            if bad:
                raise PxframeError(
                    f"{where}: {bad} of {score.numel()} scores of layer {name!r} are not finite; "
                    f"look for NaN, infinity or very large numbers in the model's weights and in the batches"
                )
    return checked


def _check_score(score: Any, entry: Tensor, which: str) -> None:
    if not isinstance(score, Tensor):
        raise PxframeError(f"{which} must be a tensor, got {type(score).__name__}")
    if score.layout != torch.strided:
        raise PxframeError(f"{which} is {score.layout}, and must be a dense tensor: call .to_dense()")
    if score.shape != entry.shape:
        raise PxframeError(f"{which} has shape {tuple(score.shape)}, and should have {tuple(entry.shape)}")
    if score.device != entry.device:
        raise PxframeError(f"{which} is on {score.device}, its weight on {entry.device}")
    if score.dtype not in _DTYPES:
        raise PxframeError(f"{which} is {score.dtype}, and should be floating-point of 16, 32 or 64 bits")


def tied_at_zero(scores: Mapping[str, Tensor], candidates: Mapping[str, Tensor], keep: int) -> str:
    """Describe a tie between scores of exactly 0 that decides which entries are pruned; else the empty string.

    Entries with negative scores are pruned first. There is a tie when some of the zeros must follow them and others are
    kept.

    Args:
        scores: by layer, one score an entry.
        candidates: by layer, true where an entry may be kept.
        keep: how many of the candidates are kept.
    """
    values, allowed = comparable(scores.values()), comparable(candidates[name] for name in scores)
    if reaches(((v > 0) & a for v, a in zip(values, allowed, strict=True)), keep):
        return ""
    zeros = counts([(v == 0) & a for v, a in zip(values, allowed, strict=True)])
    surplus = sum(counts([(v >= 0) & a for v, a in zip(values, allowed, strict=True)])) - keep
    if not 0 < surplus < sum(zeros):
        return ""
    layers = [name for name, number in zip(scores, zeros, strict=True) if number]
    return (
        f"{sum(zeros)} scores are exactly 0 (in {some(layers)}) and only {surplus} of them are to be pruned: "
        f"their position decides which, not the scorer"
    )


def cause_of_zeros(net: Net, inputs: Any) -> str:
    """What makes many scores 0 whatever the scorer: layers that are zero, and layers that the output does not use.

    Args:
        inputs: a batch of the user's samples, if there is one.

    Returns:
        clauses to follow a message, each after a semicolon; the empty string if there is no such cause.
    """
    text, zero = "", _zero_throughout(net)
    if zero:
        text += f"; {some(zero)} is zero throughout and lets nothing through: train the network first, or fill it"
    unused = [] if inputs is None else _unused(net, inputs)
    if unused:
        share = sum(net.weights[name].numel() for name in unused) / sum(w.numel() for w in net.weights.values())
        text += (
            f"; the output in eval mode does not use {some(unused)} ({share:.0%} of the weights): exclude such layers"
        )
    return text


def _zero_throughout(net: Net) -> list[str]:
    named = [(n, p) for n, p in net.parameters.items() if "bias" not in n.rpartition(".")[2]]
    return [n for n, p in named if p.numel() and not p.any()]


def _unused(net: Net, inputs: Any) -> list[str]:
    """The weights that are no part of the computation of any output in eval mode."""
    weights = {name: weight.detach().clone().requires_grad_() for name, weight in net.weights.items()}
    with torch.enable_grad(), net.evaluating():
        outputs = [t for t in leaves(net(few(inputs, 1), weights)) if t.requires_grad]
        if not outputs:
            return []
        total = torch.stack([t.sum() for t in outputs]).sum()
        found = torch.autograd.grad(total, list(weights.values()), allow_unused=True)
    return [name for name, gradient in zip(weights, found, strict=True) if gradient is None]


def check_outputs_first(what: str, model: nn.Module, net: Net, inputs: Any) -> None:
    """Refuse layers with inputs in the first dimension of their weight.

    Transposed convolutions are known by their class. ``x @ weight`` is found only if there are ``inputs``.

    Args:
        what: expects outputs there; the empty string refuses nothing.
    """
    if not what:
        return
    paths = [p for p, m in model.named_modules() if isinstance(m, nn.modules.conv._ConvTransposeNd)]
    turned = [name for name in net.masks if any(name.startswith(f"{p}." if p else "") for p in paths)]
    if inputs is not None and not turned:
        turned = [name for name in inputs_first(net.trace(net.one(inputs))) if name in net.masks]
    if turned:
        raise PxframeError(
            f"{what}: {some(turned)} has its inputs, not its outputs, in the first dimension "
            f"(a transposed convolution, or x @ weight); exclude it"
        )


def collapse(net: Net, inputs: Any) -> str:
    """Say why no output of the masked network, in eval mode, depends on its input; the empty string if one does.

    The gradient by the input is exactly zero only if every path is cut, or closed by its gates on this input. So one of
    the user's samples is tried first, and only if its gradient is zero more of them and random ones.
    """
    if not dtype_of(inputs).is_floating_point:
        return ""
    connected, reached = _connected(net, net.masked(), inputs)
    if connected:
        return ""
    if not _connected(net, net.weights, inputs)[0]:
        zero = _zero_throughout(net)
        cause = f"{some(zero)} is zero throughout" if zero else "no path leads through it in eval mode"
        return (
            f"the network's output does not depend on its input even before pruning: {cause}; "
            f"give the model other values before it is pruned"
        )
    empty = Ticket(net.masks).emptied
    cut = empty or [name for name in net.masks if name not in reached]
    what = "nothing is left of" if empty else "no path goes through"
    return (
        f"the network's output no longer depends on its input: {what} {some(cut)}; "
        f"ask for a lower sparsity, more rounds or another scorer"
    )


def _connected(net: Net, weights: Mapping[str, Tensor], inputs: Any) -> tuple[bool, set[str]]:
    """Whether any output depends on the input, and names of the weights some output depends on."""
    samples, generator = mapped(torch.detach, few(inputs, 8)), torch.Generator().manual_seed(0)
    if _gradients(net, weights, few(samples, 1), names=[])[0]:
        return True, set()

    reached: set[str] = set()
    for x in (samples, noise_like(samples, generator)):
        by_input, by_weight = _gradients(net, weights, x, list(net.masks))
        if by_input:
            return True, set()
        reached |= by_weight
    return False, reached


def _gradients(net: Net, weights: Mapping[str, Tensor], x: Any, names: list[str]) -> tuple[bool, set[str]]:
    """Whether any output has a gradient by the input ``x``, and by which of the named weights' kept entries."""
    x = mapped(lambda tensor: tensor.clone().requires_grad_(tensor.is_floating_point()), x)
    ends = starting_tensors(x)
    inputs = len(ends)
    weights = {name: weight.detach().clone() for name, weight in weights.items()} if names else dict(weights)
    ends += [weights[name].requires_grad_() for name in names]
    with torch.enable_grad(), net.evaluating():
        given = leaves(net(x, weights))
        if given and not any(tensor.numel() for tensor in given):
            return True, set()  # every output is empty, so it tells nothing
        outputs = [tensor for tensor in given if tensor.requires_grad]
        if not outputs:
            return False, set()
        # A mixture of the outputs: their plain sum may be constant (after a softmax, say).
        total = torch.stack(
            [(t * torch.linspace(0.5, 1.5, t.numel(), device=t.device).to(t).view(t.shape)).sum() for t in outputs]
        ).sum()
        found = torch.autograd.grad(total, ends, allow_unused=True)
    by_input, by_weight = found[:inputs], found[inputs:]
    reached = {n for n, g in zip(names, by_weight, strict=True) if g is not None and bool((g * net.masks[n]).any())}
    return any(g is not None and bool(g.any()) for g in by_input), reached
