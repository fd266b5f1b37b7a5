"""Statistics of batch norm, measured in the pruned network."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from pxframe.base.errors import within
from pxframe.network.net import Net
from pxframe.passes.batches import Batches


def batch_statistics(net: Net, data: Batches, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Mean and variance of the inputs of each batch norm over the data, for buffers ``running_mean``, ``running_var``.

    Each batch counts by its number of values, so neither the order of the batches nor a smaller last one matters. The
    batch norms normalise by their batch, as in training; dropout and everything else works as in eval mode. The
    variance is the mean of the batches' variances: with few samples in a batch it is too small. A batch
    norm that no batch reaches keeps its statistics.

    Args:
        tensors: the network's parameters and buffers by name.

    Raises:
        PxframeError: a batch gives a batch norm a single value per channel.
    """
    buffers = {name: tensor.clone() for name, tensor in tensors.items() if name in net.buffers}
    reached: dict[str, int] = {}
    with torch.no_grad():
        for number, (inputs, _) in enumerate(data):
            with within(f"batch {number}"), net.measuring(reached):
                net(inputs, {**tensors, **buffers})
    ends = ("running_mean", "running_var", "num_batches_tracked")
    return {n: t for n, t in buffers.items() if n.rpartition(".")[2] in ends and n.rpartition(".")[0] in reached}
