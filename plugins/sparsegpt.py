"""SparseGPT: prunes column by column, and lets the columns that follow make up for it."""

from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

import torch

import pxframe
from pxframe.base.errors import PxframeError, some
from pxframe.base.options import positive, whole_number
from pxframe.passes.sweep import check_squares, pieces, sweep


@dataclass
class SparseGPT(pxframe.Scorer):
    """s = w^2 / U_jj^2, U^T U the inverse of H = X X^T, with w as the columns before it have left it.

    Frantar and Alistarh, "SparseGPT: Massive Language Models Can Be Accurately Pruned in One-Shot", ICML 2023, Alg. 1.
    Of each block of columns the weights with the lowest s go, over all rows together; of an N:M pattern those of each
    group. What a pruned weight did is moved to the columns behind it, and the weights that come out are what training
    starts from (``ticket.rewind``). The inputs X of a layer come from the pruned layers before it. The inputs of a
    convolution are its unfolded maps, each group of channels on its own.

    Its scores compare weights of one layer only, so the scope is ``"layer"``. Where other weights are kept than it has
    chosen, as with ``scope="row"`` or under ``shuffled``, the model's own weights are compensated once more, for the
    masks that there are.

    Args:
        block: columns that choose their mask together.
        damping: relative to the mean of the diagonal of H, added to it.

    Raises:
        PxframeError: an option is out of its range; whole channels, or scores alone, are asked for; H of a layer would
            take more than 2 GiB; or the inputs of a layer cannot be read, or differ between two uses of its weight.
    """

    block: int = 128
    damping: float = 0.01

    name = "sparsegpt"
    needs = "inputs"
    comparable = False
    defaults: ClassVar[dict[str, Any]] = {"scope": "layer"}

    def __post_init__(self):
        whole_number(self.name, "block", self.block)
        positive(self.name, "damping", self.damping)

    def score(self, net, batches):
        if net.quotas is None:
            raise PxframeError(
                "sparsegpt chooses weights for a number of them that each layer keeps, so it gives no scores without "
                "one; take pxframe.prune"
            )
        for given, _ in batches:
            check_squares(net, given)
            break
        before = net.memory.get(self.name)
        weights = net.masked()
        if before is not None:
            weights = {n: w * net.masks[n] for n, w in self._fitting(net, before).items()}
        weights, scores, chosen = self._pruned(net, batches, weights, net.quotas)
        net.memory[self.name] = weights, chosen, batches
        return scores

    def score_channels(self, net, batches):
        raise PxframeError("sparsegpt chooses single weights; take another scorer for channels")

    def restart(self, net):
        return self._fitting(net, net.memory[self.name])

    def _fitting(self, net, before):
        """The weights that make up for those that the masks of ``net`` prune, whoever chose them."""
        weights, chosen, batches = before
        if all(torch.equal(chosen[name], mask) for name, mask in net.masks.items()):
            return weights
        return self._pruned(net, batches, net.weights, None)[0]

    def _pruned(self, net, batches, weights, quotas):
        """New weights, scores and masks of all layers, starting from ``weights``.

        Args:
            quotas: how many weights each layer keeps, those held not counted; None: those of the net's masks.
        """
        pruned = {**net.buffers, **net.parameters, **weights}
        scores = {name: torch.zeros_like(w, dtype=torch.float64).flatten() for name, w in net.weights.items()}
        chosen = {name: torch.zeros_like(mask).flatten() for name, mask in net.masks.items()}
        seen = {name: 0 for name in net.masks}
        free = {name: 0 for name in net.masks}  # those of them that are not held
        inputs = [part for given, _ in batches for part in pieces(net, given)]
        for product, [values] in sweep(net, inputs, [pruned]):
            if not product.shape.numel():
                continue
            name, index = product.name, product.index
            own, hessian = pruned[name].flatten().clone(), 0  # what it was may be the net's
            for value in values:
                columns = product.columns(value).double()
                hessian = hessian + columns @ columns.mT
            order = _order(net, name, index.shape[-1])
            index, hessian = index[..., order], hessian[:, order][..., order]
            left = net.masks[name].flatten()[index]
            held, of_layer = torch.zeros_like(left), 0
            if name in net.held:
                held, of_layer = net.held[name].flatten()[index], int(net.held[name].sum())
            before, number = free[name], int(held.sum())
            free[name] += index.numel() - number
            keep = None
            if quotas is not None:  # the parts of a layer share its quota; what they keep adds up to it
                share = quotas[name] / max(own.numel() - of_layer, 1)
                keep = round(share * free[name]) - round(share * before) + number
            new, found, kept = self._layer(own[index].double(), hessian, left, held, keep, net.pattern)
            own[index], scores[name][index], chosen[name][index] = new.to(own.dtype), found, kept
            pruned[name] = own.view(pruned[name].shape)
            seen[name] += index.numel()
        wrong = [name for name, number in seen.items() if number != net.weights[name].numel()]
        if wrong:
            raise PxframeError(f"{some(wrong)} has inputs that cannot be read, or is used twice; exclude it")
        shapes = {name: w.shape for name, w in net.weights.items()}
        return (
            {name: pruned[name] for name in shapes},
            *({name: part[name].view(shape) for name, shape in shapes.items()} for part in (scores, chosen)),
        )

    def _layer(self, weights, hessian, left, held, keep, pattern):
        """The new weights of a layer, the scores, those of kept weights above 1 and the others below, and the mask.

        Args:
            weights: ``[groups, rows, columns]``, zero where pruned before.
            left: bool, of the same shape: false where pruned before.
            held: bool, of the same shape: true where a weight is not to be pruned.
            keep: how many weights are to be left; None: what is left stays.
            pattern: N and M, or None.
        """
        diagonal = hessian.diagonal(dim1=-2, dim2=-1)
        ridge = (self.damping * diagonal.mean(-1, keepdim=True)).where(diagonal.any(-1, keepdim=True), 1)
        damped = hessian + torch.diag_embed(ridge.expand_as(diagonal))
        upper = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(damped)), upper=True)
        spread = upper.diagonal(dim1=-2, dim2=-1)
        weights, scores, kept = weights.clone(), torch.zeros_like(weights), torch.zeros_like(left)
        columns, gone = weights.shape[-1], 0
        block = self.block if pattern is None else max(self.block // pattern[1], 1) * pattern[1]
        for start in range(0, columns, block):
            stop = min(start + block, columns)
            dropped = ~left[..., start:stop]
            if keep is not None and pattern is None:
                until = round((weights.numel() - keep) * stop / columns)  # pruned weights when this block is done
                values = _values(weights[..., start:stop], spread[..., start:stop], dropped, held[..., start:stop])
                dropped = _lowest(values, dropped, until - gone)
                gone += int(dropped.sum())
            errors = torch.zeros_like(weights[..., start:stop])
            for at in range(start, stop):
                if keep is not None and pattern is not None and at % pattern[1] == 0:
                    end = at + pattern[1]
                    here = slice(at - start, end - start)
                    values = _values(weights[..., at:end], spread[..., at:end], dropped[..., here], held[..., at:end])
                    dropped[..., here] = _of_group(values, dropped[..., here], held[..., at:end], pattern)
                column, drop, scale = weights[..., at], dropped[..., at - start], spread[:, at, None]
                value = (column / scale).square()
                scores[..., at] = value / (1 + value) + ~drop
                errors[..., at - start] = error = torch.where(drop, column, 0) / scale
                weights[..., at:stop] -= error.unsqueeze(-1) * upper[:, None, at, at:stop]
                weights[..., at] = torch.where(drop, 0, column)
            weights[..., stop:] -= errors @ upper[:, start:stop, stop:]
            kept[..., start:stop] = ~dropped
        return torch.where(left, weights, 0), scores * left, kept


def _order(net, name, columns):
    """The columns in the order they are pruned: the channels of a group of an N:M pattern stand side by side."""
    places = prod(net.weights[name].shape[2:]) if net.pattern else 1
    return torch.arange(columns, device=net.device).view(-1, places).T.flatten()


def _values(weights, spread, dropped, held):
    """w^2 / U_jj^2; what is dropped stands below, what is held above all others."""
    return (weights / spread.unsqueeze(-2)).square().masked_fill(dropped, -1).masked_fill(held, torch.inf)


def _lowest(values, dropped, number):
    """``dropped`` and so many of the lowest others that there are ``number`` of them."""
    chosen = dropped.flatten()
    chosen[values.flatten().argsort(stable=True)[: max(number, 0)]] = True
    return chosen.view(dropped.shape)


def _of_group(values, dropped, held, pattern):
    """The M - N lowest of each row, those that are dropped already first; none of those that are held."""
    lowest = values.argsort(dim=-1, stable=True)[..., : pattern[1] - pattern[0]]
    return dropped.scatter(-1, lowest, True) & ~held


@pxframe.hookimpl
def pxframe_register(register):
    register.scorer(SparseGPT)
