"""LAMP (layer-adaptive magnitude pruning): magnitudes that may be compared over layers."""

import torch

import pxframe


class Lamp(pxframe.Scorer):
    """s(u) = w_u^2 / sum of w_v^2 over the weights v of the same layer that are at least as large; float64.

    Lee, Park, Mo, Ahn, Shin, "Layer-adaptive Sparsity for the Magnitude-based Pruning", ICLR 2021, the definition of
    the LAMP score. Within a layer the order is that of the magnitudes. The largest weight scores 1, so one threshold
    over all layers leaves something of each.

    Only the weights kept so far count, in the numerator and in the sum; pruned weights score 0. Of equal magnitudes the
    one that comes later in its layer scores higher: the sum of an earlier one has the later ones in it. Scores have the
    shape of their weight.
    """

    name = "lamp"
    needs = "nothing"

    def score(self, net, batches):
        return {name: _lamp(weight) for name, weight in net.masked().items()}


def _lamp(weight):
    flat = weight.flatten().double().abs()
    if not len(flat):
        return flat.view(weight.shape)
    largest = flat.amax().clamp(min=torch.finfo(flat.dtype).tiny)
    # The score does not depend on the layer's scale, and squares of numbers up to 1 cannot overflow.
    squares, order = (flat / largest).square().sort(stable=True)
    left = squares.flip(0).cumsum(0).flip(0)
    scores = torch.where(squares > 0, squares / left, 0)
    return torch.empty_like(scores).scatter_(0, order, scores).view(weight.shape)


@pxframe.hookimpl
def pxframe_register(register):
    register.scorer(Lamp)
