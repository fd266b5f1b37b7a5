"""Fisher pruning: keeps the weights whose removal would raise the loss most, by the Fisher information's diagonal."""

from dataclasses import dataclass

import torch

import pxframe
from pxframe.base.devices import sent
from pxframe.base.options import one_of
from pxframe.passes.samples import mean_squares
from pxframe.running.inputs import samples

LABELS = ("true", "sampled")


@dataclass
class Fisher(pxframe.Scorer):
    """s = theta^2 * F / 2 with F = mean over samples n of g_n^2, g_n the gradient of the loss of sample n.

    Theis, Korshunova, Tejani, Huszar, "Faster gaze prediction with dense networks and Fisher pruning", 2018, for
    single weights: the saliency of LeCun, Denker, Solla, "Optimal Brain Damage", NeurIPS 1989, with the Fisher
    information in place of the Hessian. A score estimates what the loss grows by, so scores of all layers may be
    compared.

    The model runs in eval mode, so that each sample has a gradient of its own
    (:meth:`pxframe.network.net.Net.sample_gradients`). Scores have the shape of their weight, and float32 at least:
    squares of float16 vanish. The time is that of a forward and backward pass of each sample.

    Args:
        labels: ``"true"`` takes the targets of the batches, for the empirical Fisher information. ``"sampled"`` draws
            class numbers from the softmax of the model's own output ``[N, classes, ...]``, for the Fisher information
            itself; the loss must then be the negative log-likelihood of such classes, as cross-entropy is. Targets are
            not read.

    Raises:
        PxframeError: an option is out of its range; a batch cannot be divided into samples; the model gives no tensor
            of class scores to draw labels from.
    """

    labels: str = "true"

    name = "fisher"
    needs = "labels"

    def __post_init__(self):
        one_of("fisher", "labels", self.labels, LABELS)
        if self.labels == "sampled":
            self.needs = "inputs"

    def options(self):
        return {"labels": self.labels}

    def score(self, net, batches):
        if self.labels == "sampled":
            batches = ((inputs, _drawn(net, inputs)) for inputs, _ in batches)
        weights = {name: weight.to(net.path_dtype) for name, weight in net.weights.items()}
        # The product first: the square of a gradient alone may leave the range of its dtype.
        squares = mean_squares(net, batches, lambda gradients: {n: g * weights[n] for n, g in gradients.items()})
        return {name: mean / 2 for name, mean in squares.items()}


def _drawn(net, inputs):
    """Labels ``[N, ...]``, int64, drawn from the softmax over the output's second dimension."""
    with net.evaluating(), torch.no_grad():
        output = net(inputs)
    if not (isinstance(output, torch.Tensor) and output.ndim > 1 and len(output) == samples(inputs)):
        got = f"shape {list(output.shape)}" if isinstance(output, torch.Tensor) else f"a {type(output).__name__}"
        raise pxframe.PxframeError(
            f"fisher: labels='sampled' needs a model that gives class scores [samples, classes, ...], not {got}; take "
            f"labels='true'"
        )
    # The largest of the scores plus Gumbel noise is a draw from the softmax. The device is asked nothing.
    uniform = torch.rand(output.shape, generator=net.generator, dtype=torch.float64).clamp_(min=1e-300)
    return (output.double() - sent(uniform.log_().neg_().log_(), net.device)).argmax(1)


@pxframe.hookimpl
def pxframe_register(register):
    register.scorer(Fisher)
