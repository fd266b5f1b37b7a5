"""Wanda: keeps the weights with a large magnitude on large inputs; with RIA's relative importance as an option."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

import pxframe
from pxframe.base.errors import PxframeError, some
from pxframe.base.options import positive


@dataclass
class Wanda(pxframe.Scorer):
    """s_ij = |W_ij| * ||X_j||^power, X_j the j-th input of the layer over all samples and positions.

    Sun, Liu, Bair, Kolter, "A Simple and Effective Pruning Approach for Large Language Models", ICLR 2024, Eq. 1. The
    inputs of a convolution are its unfolded maps. With ``relative``, |W_ij| is replaced by |W_ij| / sum_j |W_ij| +
    |W_ij| / sum_i |W_ij| over the weights that are left: Zhang et al., "Plug-and-Play: An Efficient Post-training
    Pruning Method for Large Language Models" (RIA), ICLR 2024, Eqs. 3 and 5.

    The paper prunes one layer after the other, each by the inputs that the pruned layers before it give. Here all
    inputs are those of the network at the masks of the round: with one round, of the unpruned network. A weight that is
    used in several places has the inputs of all of them.

    The norms of two layers' inputs have different units, so each layer has its own threshold. ``scope="row"`` compares
    the weights of each output among themselves, as the paper does for language models.

    Args:
        relative: RIA's relative importance instead of the magnitude.
        power: of the inputs' norm; default: 1, and 0.5 with ``relative``.
    """

    relative: bool = False
    power: float | None = None

    name = "wanda"
    needs = "inputs"
    comparable = False
    defaults: ClassVar[dict[str, Any]] = {"scope": "layer"}

    def __post_init__(self):
        if self.power is None:
            self.power = 0.5 if self.relative else 1.0
        positive(self.name, "power", self.power)

    def score(self, net, batches):
        # ||X_j||^2 and the product by what the product is, in whatever graph the part of the data has.
        sums = {}
        for product, columns in net.layer_inputs(batches):
            known = sums.setdefault((product.name, product.use, product.shape), [product, 0])
            known[1] = known[1] + columns.double().square().sum(-1).unsqueeze(-2)  # [groups, 1, columns]
        read = {name for name, *_ in sums}
        missing = [name for name in net.masks if name not in read]
        if missing:
            raise PxframeError(f"the inputs of {some(missing)} cannot be read; exclude it")
        weights = net.masked()
        sizes = {name: torch.zeros_like(weight.flatten(), dtype=torch.float64) for name, weight in weights.items()}
        squares = {name: torch.zeros_like(size) for name, size in sizes.items()}
        for key in list(sums):
            product, found = sums.pop(key)  # its index goes with it
            name, index = product.name, product.index
            size = weights[name].flatten()[index].double().abs()
            if self.relative:
                size = _share(size, -1) + _share(size, -2)
            sizes[name][index] = size
            # A weight that is used in several places has the inputs of them all.
            squares[name].index_put_((index,), found.expand(index.shape), accumulate=True)
        return {
            name: (size * squares[name].sqrt().pow(self.power)).view(net.weights[name].shape).to(net.weights[name])
            for name, size in sizes.items()
        }


def _share(size, dim):
    total = size.sum(dim, keepdim=True)
    return torch.where(total > 0, size / total, 0)


@pxframe.hookimpl
def pxframe_register(register):
    register.scorer(Wanda)
