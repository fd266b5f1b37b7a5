"""The trace of the Neural Tangent Kernel itself, which PX bounds: keeps the weights that carry most of it."""

from dataclasses import dataclass

import torch

import pxframe
from pxframe.base.devices import sent
from pxframe.base.options import whole_number
from pxframe.passes.samples import along_rows, outputs_of, rows_at_once
from pxframe.running.inputs import first, samples


@dataclass
class NTKTrace(pxframe.Scorer):
    """s = theta^2 * sum over samples n and outputs k of (df_k(x_n) / dtheta)^2, at the masked weights.

    Without theta^2 the scores of all weights add up to the trace of the Neural Tangent Kernel of the prunable weights
    (Jacot, Gabriel, Hongler, "Neural Tangent Kernel", NeurIPS 2018). PX (``px``) bounds this trace by sums over paths,
    which need no gradient of single samples and outputs; ``ntk_sap`` estimates how it depends on the mask.

    The model runs in eval mode. All floating-point outputs count. Labels are not read. Scores have the shape of their
    weight, and float32 at least: squares of float16 vanish. The time is that of a forward pass for each sample, and a
    backward pass for each sample and each output or probe. Of a network with more than four million prunable weights,
    or one that cannot take many samples together, the forward pass is repeated, too, so that the memory stays bounded.

    Args:
        probes: at least 1. With K outputs for each sample, K at most ``probes``, the sum over k is taken exactly. With
            more, as in segmentation, it is estimated (Hutchinson, "A stochastic estimator of the trace of the influence
            matrix", 1989): the mean of (d<v, f(x_n)> / dtheta)^2 over so many vectors v of independent signs, drawn
            anew for each sample and round. The mean over draws is the sum itself.

    Raises:
        PxframeError: an option is out of its range, a batch cannot be divided into samples, or the model has no
            floating-point output.
    """

    probes: int = 16

    name = "ntk_trace"
    needs = "inputs"

    def __post_init__(self):
        whole_number("ntk_trace", "probes", self.probes)

    def score(self, net, batches):
        weights = {name: weight.to(net.path_dtype) for name, weight in net.weights.items()}
        total = {name: torch.zeros_like(weight) for name, weight in weights.items()}
        along = net.with_(loss=along_rows)
        for inputs, _ in batches:
            for directions, share in self._directions(net, inputs):
                rows = directions.shape[1]
                for gradients in along.sample_gradients([(inputs, directions)], rows=rows):
                    for name, gradient in gradients.items():
                        total[name] += (gradient * weights[name]).square_().sum((0, 1)).mul_(share)
        return total

    def _directions(self, net, inputs):
        """Vectors ``[N, rows, K]`` in the space of outputs, and the weight of each.

        They are every unit vector, or random signs, as many at once as memory allows.
        """
        number = samples(inputs)
        with net.evaluating(), torch.no_grad():
            outputs = outputs_of(net(first(inputs)))[0]
        exact = len(outputs) <= self.probes
        rows = rows_at_once(net, min(self.probes, len(outputs)), number * len(outputs))
        for k in range(0, min(self.probes, len(outputs)), rows):
            if exact:
                units = torch.eye(len(outputs), dtype=outputs.dtype, device=outputs.device)[k : k + rows]
                yield units.expand(number, -1, -1), 1.0
            else:
                shape = (min(rows, self.probes - k), number, len(outputs))
                signs = torch.randint(2, shape, generator=net.generator, dtype=torch.int8).transpose(0, 1)
                yield sent(signs, net.device).to(outputs.dtype).mul_(2).sub_(1), 1 / self.probes


@pxframe.hookimpl
def pxframe_register(register):
    register.scorer(NTKTrace)
