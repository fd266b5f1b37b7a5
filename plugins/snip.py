"""SNIP: keeps the weights whose removal would change the loss most, to first order."""

import torch

import pxframe
from pxframe.network.ties import joined
from pxframe.scoring.gated import channel_derivatives, channel_parameters


class Snip(pxframe.Scorer):
    """s = |dL/dm| at m, summed over batches before the magnitude: |theta * dL/d(theta m)|.

    Lee, Ajanthan, Torr, "SNIP: Single-shot Network Pruning based on Connection Sensitivity", ICLR 2019, Eq. 4.
    The model runs in the mode it is in: in training mode BN takes the batch's statistics, as the paper does.
    Shape: the weight's. A pruned weight is scored as well, by what its return would change.

    ``score_channels``, shape ``[weight.shape[0]]``: |dL/dc| of a mask entry c on each output channel, behind the batch
    norm if one follows at once (:mod:`pxframe.scoring.gated`): |sum over p of p * dL/dp|, p the norm's gamma and beta,
    or else the layer's weights and bias. Van Amersfoort, Alizadeh, Farquhar, Lane, Gal, "Single Shot Structured Pruning
    Before Training" (3SP), 2020. A channel pruned whole is scored by what the return of its weights would change.

    ``score_groups``, shape ``[channels]``: |dL/dc| of one mask entry c that multiplies all channels that go together,
    the magnitude of the sum over their layers of dL/dc with its sign.
    """

    name = "snip"
    needs = "labels"

    def score(self, net, batches):
        gradients = self.gradients(net, batches)
        return {name: (weight * gradients[name]).abs() for name, weight in net.weights.items()}

    def score_channels(self, net, batches):
        return {name: slope.abs() for name, slope in self._slopes(net, batches).items()}

    def score_groups(self, net, batches):
        return {group: slope.abs() for group, slope in joined(net.ties, self._slopes(net, batches)).items()}

    def _slopes(self, net, batches):
        """By weight, dL/dc of a mask entry c on each output channel, with its sign, summed over batches."""
        gradients = self.gradients(net, batches, {**net.parameters, **net.masked()})
        inputs, _ = next(iter(batches))
        gated = channel_derivatives(net, channel_parameters(net.trace(net.one(inputs))), gradients)
        slopes = {}
        for name, weight in net.weights.items():
            back = (weight * gradients[name]).flatten(1).sum(1)
            slopes[name] = torch.where(net.masks[name].flatten(1).any(1), gated[name], back)
        return slopes

    def gradients(self, net, batches, values=None):
        """dL/dp by name, summed over batches, at ``values`` (default: theta m). Where methods of this family differ."""
        return net.gradients(batches, values)


@pxframe.hookimpl
def pxframe_register(register):
    register.scorer(Snip)
