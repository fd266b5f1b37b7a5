"""The empirical Neural Tangent Kernel of a network: its matrix, block by block, and its products with vectors."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import jvp

from pxframe.base.errors import PxframeError, within
from pxframe.engine.tracing.unfused import math_attention
from pxframe.network.net import Net
from pxframe.passes.samples import along_rows, outputs_of
from pxframe.running.inputs import first, samples

#: Numbers of the Jacobian that are in memory at a time: 1 GiB in float64. A larger one takes more passes.
_ENTRIES = 1 << 27
#: Gradients taken at once, for each sample; more take more memory.
_ROWS = 16


class Kernel:
    """K[(n, k), (m, l)] = sum over parameters of df_k(x_n)/dtheta * df_l(x_m)/dtheta, in eval mode.

    Jacot, Gabriel, Hongler, "Neural Tangent Kernel", NeurIPS 2018. The parameters are the weights of ``net`` that its
    masks keep. f_k are all floating-point numbers that the network gives for one sample.

    Args:
        net: the network, at its masks.
        batches: ``(input, target)`` pairs; targets are not read.

    Attributes:
        samples: N, the number of samples.
        outputs: K, the number of outputs of each.

    Raises:
        PxframeError: a batch cannot be divided into samples, or the network has no floating-point output.
    """

    def __init__(self, net: Net, batches: Sequence[tuple[Any, Any]]) -> None:
        self._net = net
        self._inputs = [inputs for inputs, _ in batches]
        self._counts = [samples(inputs) for inputs in self._inputs]
        self.samples = sum(self._counts)
        if not self.samples:
            raise PxframeError("a kernel needs images: 'batches' gave no (input, target) pair")
        with net.evaluating(), torch.no_grad():
            self.outputs = outputs_of(net(first(self._inputs[0]))).shape[1]

    @property
    def size(self) -> int:
        """N * K, the number of rows of the matrix."""
        return self.samples * self.outputs

    def matrix(self) -> Tensor:
        """K as float64 ``[N * K, N * K]`` on the CPU, the outputs of a sample side by side.

        The gradients are taken in the weights' own dtype, and their products are summed in float64. If the Jacobian
        takes more than a gigabyte, the samples are passed through once for each gigabyte of it.
        """
        found = torch.zeros(self.size, self.size, dtype=torch.float64)
        for pieces in self._groups():
            jacobian = torch.cat([rows.double() for rows in self._columns(pieces)])
            found += (jacobian @ jacobian.mT).cpu()
        return found

    def times(self, vector: Tensor) -> Tensor:
        """K v by a backward and a forward derivative of each batch; ``[N * K]``, float64, like ``v``."""
        kept = self.backward(vector)
        found = [self._forward(inputs, kept) for inputs in self._inputs]
        return torch.cat(found).double().cpu()

    def backward(self, vector: Tensor) -> dict[str, Tensor]:
        """J^T v, by the parameters' names; zero where a weight is pruned. v^T K v is its squared norm."""
        cut = vector.split([count * self.outputs for count in self._counts])
        net = self._net.with_(loss=_product)
        pairs = [
            (inputs, part.view(count, -1).to(net.device, net.path_dtype))
            for inputs, part, count in zip(self._inputs, cut, self._counts, strict=True)
        ]
        with net.evaluating():
            found = net.gradients(pairs)
        return {name: gradient * net.masks[name] for name, gradient in found.items()}

    def _forward(self, inputs: Any, direction: Mapping[str, Tensor]) -> Tensor:
        """J d for the samples of one batch, ``[n * K]``."""
        net = self._net

        def outputs(weights: dict[str, Tensor]) -> Tensor:
            return outputs_of(net(inputs, weights), samples(inputs))

        weights = net.masked()
        with net.evaluating(), math_attention(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "An output with one or more elements was resized")
            return jvp(outputs, (weights,), ({name: direction[name] for name in weights},))[1].flatten().detach()

    def _groups(self) -> Iterator[list[tuple[str, int, int]]]:
        """Lists of pieces ``(name, first entry, last entry + 1)`` whose columns fit into memory together.

        Entries are those that are kept.
        """
        most, room = max(1, _ENTRIES // self.size), 0
        pieces: list[tuple[str, int, int]] = []
        for name, mask in self._net.masks.items():
            at, end = 0, int(mask.count_nonzero())
            while at < end:
                room = room or most
                stop = min(end, at + room)
                pieces.append((name, at, stop))
                room -= stop - at
                at = stop
                if not room:
                    yield pieces
                    pieces = []
        if pieces:
            yield pieces

    def _columns(self, pieces: Sequence[tuple[str, int, int]]) -> Iterator[Tensor]:
        """The Jacobian's columns of the pieces, for one batch after the other: ``[n * K, entries]``."""
        net = self._net
        names = list(dict.fromkeys(name for name, _, _ in pieces))
        where = {name: net.masks[name].flatten().nonzero().squeeze(1) for name in names}
        units = torch.eye(self.outputs, dtype=net.path_dtype, device=net.device)
        along = net.with_(loss=along_rows)
        for number, (inputs, count) in enumerate(zip(self._inputs, self._counts, strict=True)):
            with within(f"batch {number}"):
                blocks = []
                for some in units.split(_ROWS):
                    pair = inputs, some.expand(count, -1, -1)
                    found = along.sample_gradients([pair], names, rows=len(some))
                    chunks = [torch.cat([g[n].flatten(2)[:, :, where[n][a:b]] for n, a, b in pieces], 2) for g in found]
                    blocks.append(torch.cat(chunks))
                yield torch.cat(blocks, 1).flatten(0, 1)


def _product(output: Any, vector: Tensor) -> Tensor:
    return (outputs_of(output, len(vector)) * vector).sum()
