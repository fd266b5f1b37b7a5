"""SNIP: keeps the weights whose removal would change the loss most, to first order."""

import pxframe


class Snip(pxframe.Scorer):
    """s = |dL/dm| at m, summed over batches before the magnitude: |theta * dL/d(theta m)|.

    Lee, Ajanthan, Torr, "SNIP: Single-shot Network Pruning based on Connection Sensitivity", ICLR 2019, Eq. 4.
    The model runs in the mode it is in: in training mode BN takes the batch's statistics, as the paper does.
    """

    name = "snip"
    needs = "labels"

    def score(self, net, batches):
        gradients = net.gradients(batches)
        return {name: (weight * gradients[name]).abs() for name, weight in net.weights.items()}


@pxframe.hookimpl
def pxframe_register(register):
    register.scorer(Snip)
