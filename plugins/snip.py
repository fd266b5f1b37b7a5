"""SNIP: keeps the weights whose removal would change the loss most, to first order."""

import pxframe


class Snip(pxframe.Scorer):
    """s = |dL/dm| at m, summed over batches before the magnitude: |theta * dL/d(theta m)|.

    Lee, Ajanthan, Torr, "SNIP: Single-shot Network Pruning based on Connection Sensitivity", ICLR 2019, Eq. 4.
    The model runs in the mode it is in: in training mode BN takes the batch's statistics, as the paper does.
    Shape: the weight's. A pruned weight is scored as well, by what its return would change.

    ``score_channels`` has one mask entry per output channel instead, shape ``[weight.shape[0]]``:
    |sum over the channel's kept weights of theta * dL/d(theta m)|, the magnitude after the sum; over all its weights
    where the whole channel is pruned. Van Amersfoort, Alizadeh, Farquhar, Lane, Gal, "Single Shot Structured Pruning
    Before Training" (3SP), 2020.
    """

    name = "snip"
    needs = "labels"

    def score(self, net, batches):
        gradients = self.gradients(net, batches)
        return {name: (weight * gradients[name]).abs() for name, weight in net.weights.items()}

    def score_channels(self, net, batches):
        gradients = self.gradients(net, batches)
        scores = {}
        for name, weight in net.weights.items():
            kept = net.masks[name].flatten(1)
            counted = kept | ~kept.any(1, keepdim=True)
            scores[name] = ((weight * gradients[name]).flatten(1) * counted).sum(1).abs()
        return scores

    def gradients(self, net, batches):
        """dL/d(theta m) by name, summed over batches: where methods of this family differ."""
        return net.gradients(batches)


@pxframe.hookimpl
def pxframe_register(register):
    register.scorer(Snip)
