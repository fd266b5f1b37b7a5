"""Taylor importance: the square of what the loss of a sample changes by, to first order, when something is removed."""

import pxframe
from pxframe.network.ties import joined
from pxframe.passes.samples import mean_squares
from pxframe.scoring.gated import channel_derivatives, channel_parameters


class Taylor(pxframe.Scorer):
    """s = mean over samples n of (theta g_n)^2, g_n the gradient of the loss of sample n.

    Molchanov, Mallya, Tyree, Frosio, Kautz, "Importance Estimation for Neural Network Pruning", CVPR 2019, the
    first-order importance. For single weights it is twice the score of ``fisher``, and so the same order.

    ``score_channels``, shape ``[weight.shape[0]]``: mean_n (dL_n/dc)^2 of a mask entry c on each output channel, the
    paper's gate behind the batch norm if one follows at once (:mod:`pxframe.scoring.gated`): dL_n/dc is the sum over p
    of p * dL_n/dp, p the norm's gamma and beta, or else the layer's weights and bias.

    ``score_groups``, shape ``[channels]``: mean_n (dL_n/dc)^2 of one mask entry c that multiplies all channels that go
    together: the square of the sum over their layers.

    The model runs in eval mode, so that each sample has a gradient of its own
    (:meth:`pxframe.network.net.Net.sample_gradients`). Scores are float32 at least: squares of float16 vanish. The time
    is that of a forward and backward pass of each sample.

    Raises:
        PxframeError: a batch cannot be divided into samples; for channels, a batch norm without parameters follows a
            layer.
    """

    name = "taylor"
    needs = "labels"

    def score(self, net, batches):
        weights = {name: weight.to(net.path_dtype) for name, weight in net.weights.items()}
        return mean_squares(net, batches, lambda gradients: {n: g * weights[n] for n, g in gradients.items()})

    def score_channels(self, net, batches):
        slopes, names = _gates(net, batches)
        return mean_squares(net, batches, slopes, names)

    def score_groups(self, net, batches):
        slopes, names = _gates(net, batches)
        return mean_squares(net, batches, lambda gradients: joined(net.ties, slopes(gradients)), names)


def _gates(net, batches):
    """What makes dL_n/dc ``[samples, out]``, by weight, of gradients, and the names of the parameters it takes."""
    inputs, _ = next(iter(batches))
    parts = channel_parameters(net.trace(net.one(inputs)))
    names = dict.fromkeys(part for name in net.weights for part in parts.get(name) or [name])

    def slopes(gradients):
        # The product in full precision: the square of a gradient alone may leave the range of its dtype.
        return channel_derivatives(net, parts, {n: g.to(net.path_dtype) for n, g in gradients.items()})

    return slopes, list(names)


@pxframe.hookimpl
def pxframe_register(register):
    register.scorer(Taylor)
