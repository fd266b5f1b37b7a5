"""Fourier transforms: every entry of their matrix has the same magnitude, so each output sums all inputs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pxframe.engine.rules.table import Step, operation, rule
from pxframe.engine.scaled import Scaled


@rule("_fft_r2c", "_fft_c2c", "_fft_c2r")
def fourier(step: Step) -> Scaled:
    """``(x, dims, normalization, ...)``: a sum along ``dims`` times the normalization, at every frequency or position.

    The path value of a complex number is one non-negative number. Of the spectrum of real values torch keeps one half:
    a frequency in it stands for two, itself and its conjugate.
    """
    dims: Sequence[int] = step.args[1]
    value = step.path()
    shape = list(step.result_shape())
    lengths = [shape[d] for d in dims]
    if operation(step.node) == "_fft_r2c":
        lengths = [value.mantissa.shape[d] for d in dims]
    size = math.prod(lengths)
    factor = {0: 1.0, 1: size**-0.5, 2: 1 / size}[step.args[2]] ** step.reading.power

    def transform(m: Tensor) -> Tensor:
        if operation(step.node) == "_fft_c2r":
            m = _both_halves(m, dims[-1], lengths[-1])
        return (m.sum(list(dims), keepdim=True) * factor).expand(shape)

    return step.linear(value, transform, math.log2(max(1, size)))


def _both_halves(m: Tensor, dim: int, length: int) -> Tensor:
    """Times 2 for each frequency of a half spectrum along ``dim`` that has a conjugate of its own."""
    frequencies = torch.arange(m.shape[dim], device=m.device)
    alone = (frequencies == 0) | (2 * frequencies == length)
    return m * (2 - alone.to(m.dtype)).view(-1, *[1] * (m.ndim - 1 - dim % m.ndim))
