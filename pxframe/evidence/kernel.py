"""The empirical Neural Tangent Kernel of a network: its matrix, block by block, and its products with vectors."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import jvp

from pxframe.base.errors import PxframeError, within
from pxframe.base.inputs import first, leaves, samples
from pxframe.engine.unfused import math_attention
from pxframe.scoring.net import Net
from pxframe.scoring.samples import parts

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
            self.outputs = len(_outputs(net(first(self._inputs[0]))))

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
            return _all_outputs(net(inputs, weights), samples(inputs))

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
        """The Jacobian's columns of the pieces, for some samples after the other: ``[n * K, entries]``."""
        names = list(dict.fromkeys(name for name, _, _ in pieces))
        where = {name: self._net.masks[name].flatten().nonzero().squeeze(1) for name in names}
        along = self._net.with_(loss=_rows)
        for number, inputs in enumerate(self._inputs):
            with within(f"batch {number}"):
                for some, _ in parts(inputs, None, 8):
                    count = samples(some)
                    rows: list[Tensor] = []
                    for start in range(0, self.outputs, _ROWS):
                        units = torch.eye(self.outputs, dtype=self._net.path_dtype, device=self._net.device)
                        units = units[start : start + _ROWS].expand(count, -1, -1)
                        for found in along.sample_gradients([(some, units)], names, rows=units.shape[1]):
                            cut = [found[n].flatten(2)[:, :, where[n][a:b]] for n, a, b in pieces]
                            rows.append(torch.cat(cut, 2))
                    yield _in_order(rows, count, self.outputs)


def _in_order(rows: list[Tensor], count: int, outputs: int) -> Tensor:
    """Chunks of samples for some outputs, then for the next outputs, as ``[samples * outputs, entries]``."""
    groups: list[list[Tensor]] = []
    seen = count
    for part in rows:
        if seen == count:
            groups.append([])
            seen = 0
        groups[-1].append(part)
        seen += len(part)
    return torch.cat([torch.cat(group) for group in groups], 1).reshape(count * outputs, -1)


def _outputs(output: Any) -> Tensor:
    """Every floating-point number that the network gives for one sample, ``[K]``."""
    return _all_outputs(output, 1).flatten()


def _all_outputs(output: Any, count: int) -> Tensor:
    """The same for ``count`` samples, ``[count, K]``."""
    found = [leaf.reshape(count, -1) for leaf in leaves(output) if leaf.is_floating_point()]
    if not found:
        raise PxframeError("the network has no floating-point output, so it has no tangent kernel")
    return torch.cat(found, 1)


def _product(output: Any, vector: Tensor) -> Tensor:
    return (_all_outputs(output, len(vector)) * vector).sum()


def _rows(output: Any, directions: Tensor) -> Tensor:
    """The products with the directions ``[1, rows, K]`` of one sample, ``[rows]``."""
    return (_outputs(output) * directions.flatten(0, 1)).sum(1)
