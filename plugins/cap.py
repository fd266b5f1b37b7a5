"""CAP (correlation-aware pruning): Optimal Brain Surgeon in blocks of weights, compared over all layers."""

from dataclasses import dataclass
from itertools import groupby

import torch
import torch.nn.functional as F

import pxframe
from pxframe.base.errors import within
from pxframe.base.options import positive, whole_number
from pxframe.passes.samples import parts

#: Numbers of the blocks' matrices that are in memory at a time; 1 GB in float64. More weights take more passes.
_ENTRIES = 1 << 27
#: The same of the blocks that are taken apart together: 1 MB, which one core's cache holds through all removals.
_AT_ONCE = 1 << 17
#: Added to a block's diagonal, relative to its largest entry: more than float64 loses, less than float32 is exact to.
_RELATIVE = 1e-10
#: Added to what is relative: without any gradient, all weights of a block go at no cost, the smallest first.
_LEAST = 1e-100


@dataclass
class CAP(pxframe.Scorer):
    """s = the loss that has been added when a weight goes, as the weights of its block go one by one.

    Kuznedelev, Kurtic, Frantar, Alistarh, "CAP: Correlation-Aware Pruning for Highly-Accurate Sparse Vision Models",
    NeurIPS 2023. The flattened weights of a layer are cut into blocks of B. With A = lambda I + mean of g g^T over
    gradients g of a block, the empirical Fisher information, the next weight to go is the one with the least
    w_p^2 / (2 [A^-1]_pp), and the others become w - A^-1_{:,p} w_p / [A^-1]_pp (Hassibi, Stork, "Second order
    derivatives for network pruning: Optimal Brain Surgeon", NeurIPS 1992). A^-1 then loses row and column p (Frantar,
    Alistarh, "Optimal Brain Compression", NeurIPS 2022, Lemma 1). Scores are sums of these losses from a block's first
    removal on. They are all in units of the loss, so they are compared over all layers.

    Scores are float64, of the shape of their weight; weights pruned before score 0 and are not in A. The model runs in
    eval mode. The memory is that of a gradient and of B float64 numbers for each weight, 1 GB at most; beyond that the
    gradients are computed again for each further GB. The paper takes A^-1 by one rank-one update a gradient; the
    Cholesky factor of A gives the same matrix with one sweep over memory for several gradients.

    Args:
        block: B. The last block of a layer may be smaller.
        damping: gives lambda, above 0: relative to the mean squared gradient of each block's weights. Where the
            gradients of a block span fewer dimensions than it has weights, lambda decides on the rest.
        relative: False: lambda is ``damping`` itself, in units of a squared gradient. The paper takes
            ``damping=1e-8, relative=False``. How much that is depends on the network and on how many samples a
            gradient is the mean of. docs/methods.md compares them.
        gradients: ``"samples"`` takes those of single samples, or a number those of minibatches of so many, which
            are faster; the paper takes 4096 minibatches.
        update: True: training of the ticket starts from the kept weights as the removal of all others from the dense
            model's blocks changes them, which takes the gradients once more. False: from the model's own weights.

    Raises:
        PxframeError: an option is out of its range, or a batch cannot be divided into samples.
    """

    block: int = 32
    damping: float = 0.01
    relative: bool = True
    gradients: str | int = "samples"
    update: bool = True

    name = "cap"
    needs = "labels"

    def __post_init__(self):
        whole_number("cap", "block", self.block)
        positive("cap", "damping", self.damping)
        if self.gradients != "samples" and (type(self.gradients) is not int or self.gradients < 1):
            raise pxframe.PxframeError(
                f"cap: 'gradients' must be 'samples', or a whole number of at least 1, the size of a minibatch; got "
                f"{self.gradients!r}"
            )
        for option in ("relative", "update"):
            if not isinstance(getattr(self, option), bool):
                raise pxframe.PxframeError(f"cap: {option!r} must be True or False, got {getattr(self, option)!r}")

    def score(self, net, batches):
        net.memory.setdefault("cap", (net.masks, batches))
        return self._each_block(net, batches, _losses, net.masks)

    def restart(self, net):
        if not self.update:
            return None
        first, batches = net.memory["cap"]
        new = self._each_block(net.with_(masks=first), batches, _updated, net.masks)
        for name, weight in net.weights.items():
            held = net.held.get(name)
            new[name] = (new[name] if held is None else torch.where(held, weight, new[name])).to(weight.dtype)
        return new

    def _each_block(self, net, batches, function, masks):
        """``function(A, weights, ranked, masks)`` of all blocks: ``[n, B, B]`` and ``[n, B]``; joined to layers.

        With its values ``[n, B]`` it gives torch's report on the Cholesky factors that it took, 0 where one is there.
        """
        ranked = {n: mask & ~net.held[n] if n in net.held else mask for n, mask in net.masks.items()}
        # A layer without weights has no blocks.
        found = {name: [w.new_empty(0, dtype=torch.float64)] for name, w in net.weights.items() if not w.numel()}
        found |= {name: [] for name in net.weights if name not in found}
        for pieces in self._groups(net):
            for piece, fisher in self._fisher(net, batches, pieces, ranked):
                name = piece[0]
                layers = (net.weights[name].double(), ranked[name], masks[name])
                split = [self._cut(layer, piece).split(self._blocks(_AT_ONCE)) for layer in layers]
                for part in zip(fisher.split(self._blocks(_AT_ONCE)), *split, strict=True):
                    values, info = function(self._damped(part[0], part[2]), *part[1:])
                    net.require(
                        info.eq(0).all(),
                        f"cap: gradients by {name} are not finite, or too large for the damping; raise it",
                    )
                    found[name].append(values)
        return {
            name: torch.cat(found[name]).flatten()[: weight.numel()].view(weight.shape)
            for name, weight in net.weights.items()
        }

    def _blocks(self, entries):
        return max(1, entries // self.block**2)

    def _groups(self, net):
        """Lists of pieces ``(name, first block, last block + 1)`` whose matrices fit into memory together."""
        most, pieces, at = self._blocks(_ENTRIES), [], 0
        for name, weight in net.weights.items():
            start, end = 0, -(-weight.numel() // self.block)
            while start < end:
                stop = min(end, start + most - at % most)
                pieces.append((at // most, (name, start, stop)))
                at, start = at + stop - start, stop
        return [[piece for _, piece in group] for _, group in groupby(pieces, key=lambda pair: pair[0])]

    def _cut(self, rows, piece):
        """A layer's piece, cut into blocks: ``[n, B]`` of a tensor of the layer's shape; the end is filled with 0."""
        _, start, stop = piece
        flat = rows.flatten()[start * self.block : stop * self.block]
        return F.pad(flat, (0, (stop - start) * self.block - len(flat))).view(-1, self.block)

    def _fisher(self, net, batches, pieces, ranked):
        """The mean of g g^T in every block of the pieces: pairs of a piece and a tensor ``[n, B, B]``, float64."""
        size, names = self.block, list(dict.fromkeys(name for name, _, _ in pieces))
        sums = [net.weights[n].new_zeros(stop - start, size, size, dtype=torch.float64) for n, start, stop in pieces]
        number = 0
        for gradients in self._gradients(net, batches, names):
            for piece, total in zip(pieces, sums, strict=True):
                kept = gradients[piece[0]] * ranked[piece[0]]
                rows = torch.stack([self._cut(gradient, piece) for gradient in kept], 1).double()
                total.baddbmm_(rows.mT, rows)
            number += len(kept)
        return [(piece, total.div_(number)) for piece, total in zip(pieces, sums, strict=True)]

    def _gradients(self, net, batches, names):
        """By name, ``[gradients, *shape]``."""
        if self.gradients == "samples":
            yield from net.sample_gradients(batches, names)
            return
        for number, (inputs, targets) in enumerate(batches):
            with within(f"batch {number}"):
                for part in parts(inputs, targets, self.gradients):
                    with net.evaluating():
                        found = net.gradients([part])
                    yield {name: found[name].unsqueeze(0) for name in names}

    def _damped(self, fisher, ranked):
        """A, in the memory of the mean of g g^T."""
        diagonal = fisher.diagonal(dim1=1, dim2=2)
        damping = self.damping
        if self.relative:  # the diagonal is zero where a weight is not ranked
            damping = damping * diagonal.sum(1, keepdim=True) / ranked.sum(1, keepdim=True).clamp(min=1) + _LEAST
        diagonal.add_(damping + _RELATIVE * diagonal.amax(1, keepdim=True))
        return fisher


def _losses(a, weights, ranked, _):
    """Losses added up to each removal, ``[n, B]``; 0 where ``ranked`` is false, where ``a`` has only its diagonal."""
    factor, info = torch.linalg.cholesky_ex(a)
    inverse = torch.cholesky_inverse(factor).mT.contiguous()
    count, size = weights.shape
    rows, first = inverse.view(-1, size), torch.arange(0, count * size, size, device=a.device)
    diagonal = inverse.diagonal(dim1=1, dim2=2)
    # Zeros that have only their diagonal go first: they cost nothing and change nothing.
    weights, gone = weights * ranked, torch.zeros_like(ranked)
    order, losses = [], []
    for _ in range(size):
        loss, at = weights.square().div_(diagonal).masked_fill_(gone, torch.inf).min(1)
        order.append(at)
        losses.append(loss)
        column = rows.index_select(0, first + at)  # the same as the row, which lies in one piece
        at = at.unsqueeze(1)
        scaled = column / column.gather(1, at)
        weights.addcmul_(scaled, weights.gather(1, at), value=-1)
        inverse.addcmul_(column.unsqueeze(2), scaled.unsqueeze(1), value=-1)
        gone.scatter_(1, at, True)
    sums = torch.stack(losses, 1).cumsum(1).div_(2)
    return torch.empty_like(sums).scatter_(1, torch.stack(order, 1), sums), info


def _updated(a, weights, ranked, masks):
    """The weights that ``masks`` keep, ``[n, B]``: the least of (w' - w)^T A (w' - w) with w' zero at the others."""
    kept = (ranked & masks).double()
    gone = (ranked & ~masks).double()
    right = kept * (a @ (weights * gone).unsqueeze(2)).squeeze(2)
    inner = a.mul_(kept.unsqueeze(1)).mul_(kept.unsqueeze(2))  # every block is looked at once
    inner.diagonal(dim1=1, dim2=2).add_(1 - kept)
    factor, info = torch.linalg.cholesky_ex(inner)
    change = torch.cholesky_solve(right.unsqueeze(2), factor).squeeze(2)
    return kept * (weights + change), info


@pxframe.hookimpl
def pxframe_register(register):
    register.scorer(CAP)
