"""A tensor times a power of two, so that counts of paths fit float32 at any depth."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

#: On a CPU a number: arithmetic on tensors of one entry would take as long as a small layer. On a GPU, where reading it
#: would wait for the device, an int32 tensor without dimensions, or a number if it is known without reading.
Exponent = int | Tensor
#: Exponent of a tensor of zeros: below any other, so that it never decides an alignment.
FLOOR = -(2**28)
#: Bits a mantissa may have grown by before it is measured again; a float32 holds 127.
HEADROOM = 96.0


@dataclass(frozen=True)
class Scaled:
    """``mantissa * 2**exponent``.

    Attributes:
        mantissa: float tensor, any shape; non-negative where paths are counted.
        exponent: of the power of two.
        growth: an upper bound on log2 of the largest mantissa, known without reading the tensor.
    """

    mantissa: Tensor
    exponent: Exponent
    growth: float = math.inf

    @staticmethod
    def of(value: Tensor) -> Scaled:
        """``value`` with its largest magnitude brought into [0.5, 1)."""
        return Scaled(value, 0).measured()

    def measured(self) -> Scaled:
        """The same value with the largest mantissa in [0.5, 1). The factor is a constant to autograd."""
        if self.mantissa.numel() == 0:
            return Scaled(self.mantissa, self.exponent, 0.0)
        shift, exponent = self._shift()
        return Scaled(_shifted(self.mantissa, -shift), exponent, 0.0)

    def times(self, weight: Tensor, function: Callable[[Tensor, Tensor], Tensor], bits: float) -> Scaled:
        """``function(mantissa, weight)``, linear in both arguments.

        Args:
            bits: the function makes the largest magnitude at most ``2**bits`` times larger.

        If the result might overflow, the weight is scaled down and not the mantissa. That saves a pass over the
        activations, which are larger.
        """
        if self.growth + bits <= HEADROOM:
            return Scaled(function(self.mantissa, weight), self.exponent, self.growth + bits)
        shift, exponent = self._shift()
        return Scaled(function(self.mantissa, _shifted(weight, -shift)), exponent, bits)

    def _shift(self) -> tuple[Exponent, Exponent]:
        """The exponent of the largest mantissa, and this value's exponent after dividing the mantissas by it."""
        low, high = self.mantissa.detach().aminmax()
        if low.device.type == "cpu":
            number = max(-float(low), float(high))
            known = max(math.frexp(number)[1], -125)
            return known, self.exponent + known if number > 0 else FLOOR
        peak = torch.maximum(-low, high)
        shift = torch.frexp(peak).exponent.clamp(min=-125)  # 2**-shift itself must not overflow
        return shift, torch.where(peak > 0, self.exponent + shift, FLOOR)

    def map(self, function: Callable[[Tensor], Tensor], bits: float = 0.0) -> Scaled:
        """Apply a linear function that makes the largest magnitude at most ``2**bits`` times larger."""
        value = self if self.growth + bits <= HEADROOM else self.measured()
        return Scaled(function(value.mantissa), value.exponent, value.growth + bits)

    def log2(self) -> Tensor:
        """log2 of a value without dimensions, float64; -inf for zero."""
        return torch.log2(self.mantissa.double()) + self.exponent

    def __float__(self) -> float:
        """The number, for a value without dimensions; infinity if it does not fit a double."""
        try:
            return math.ldexp(float(self.mantissa), int(self.exponent))
        except OverflowError:
            return math.inf


def add(values: list[Scaled], over: int | None = None) -> Scaled:
    """The sum of values of one shape (or broadcastable).

    Args:
        over: index of a value whose memory the sum may be written into; None: of no value.
    """
    top, values, shifts = _common(values)
    if over is not None:
        base = over
    else:  # what need not be shifted; exponents on a device are not read
        base = next((index for index, shift in enumerate(shifts) if isinstance(shift, int) and shift == 0), 0)
    total = _shifted(values[base].mantissa, shifts[base])
    for index, (value, shift) in enumerate(zip(values, shifts, strict=True)):
        if index == base:
            continue
        if isinstance(shift, int):  # shifted and added in one pass over memory
            term, factor = value.mantissa, math.ldexp(1.0, shift)  # a shift to the largest exponent is at most 0
        else:
            term, factor = _shifted(value.mantissa, shift), 1.0
        total = torch.add(total, term, alpha=factor) if over is None else total.add_(term, alpha=factor)
    growth = max(v.growth for v in values) + math.log2(len(values))
    return Scaled(total, top, growth)


def align(values: list[Scaled]) -> list[Scaled]:
    """The same values with one exponent, the largest. Entries that are too small for it become zero.

    Values that share their exponent already are returned as they are; between two measurements all values do.
    """
    top, values, shifts = _common(values)
    return [Scaled(_shifted(v.mantissa, shift), top, v.growth) for v, shift in zip(values, shifts, strict=True)]


def _common(values: list[Scaled]) -> tuple[Exponent, list[Scaled], list[Exponent]]:
    """The largest exponent, the values (measured where they are to be shifted), and the shift of each to it."""
    first = values[0].exponent
    if all(v.exponent is first or _same_number(v.exponent, first) for v in values):
        return first, list(values), [0] * len(values)
    values = [v.measured() if v.growth == math.inf else v for v in values]
    top = _highest([v.exponent for v in values], values[0].mantissa.device)
    return top, values, [v.exponent - top for v in values]


def _same_number(one: Exponent, other: Exponent) -> bool:
    """False for exponents on a device, which are not read."""
    return isinstance(one, int) and isinstance(other, int) and one == other


def _highest(exponents: list[Exponent], device: torch.device) -> Exponent:
    numbers = [e for e in exponents if isinstance(e, int)]
    if len(numbers) == len(exponents):
        return max(numbers)
    filled = [torch.full((), e, dtype=torch.int32, device=device) if isinstance(e, int) else e for e in exponents]
    return torch.stack(filled).amax()


def _shifted(tensor: Tensor, exponent: Exponent) -> Tensor:
    return tensor if isinstance(exponent, int) and exponent == 0 else tensor * power_of_two(exponent, tensor)


def power_of_two(exponent: Exponent, like: Tensor) -> Tensor | float:
    """``2**exponent``, as a tensor in the dtype of ``like``; zero or infinity where it does not fit.

    The bits of a float64 are written, so it is exact on every device. ``torch.ldexp`` computes a power, and on a GPU a
    power may be rounded. (Numbers below 2**-1022 become zero; float32 has numbers down to 2**-149.)
    """
    if isinstance(exponent, int):
        return math.ldexp(1.0, exponent) if exponent < 1024 else math.inf
    bits = exponent.long().clamp(-1023, 1024).add(1023) << 52
    return bits.view(torch.float64).to(like.dtype)


def writable(tensor: Tensor) -> bool:
    """Whether every element has memory of its own, as is not the case after ``expand``."""
    return all(stride or size == 1 for stride, size in zip(tensor.stride(), tensor.shape, strict=True))
