"""Values with an exponent, against Python's exact integers."""

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from pxframe.engine.scaled import FLOOR, Scaled, add, power_of_two


def exact(value):
    return [math.ldexp(float(m), int(value.exponent)) for m in value.mantissa.flatten()]


@pytest.mark.parametrize("peak", [1e-30, 3.0, 2.0**100, 1.5e38])
def test_measuring_changes_no_value(peak):
    tensor = torch.tensor([0.0, peak / 1024, peak])
    value = Scaled.of(tensor)
    assert 0.5 <= value.mantissa.max() < 1
    assert exact(value) == tensor.double().tolist()


def test_sums_align_exponents():
    a, b = Scaled.of(torch.tensor([1.0, 2.0])), Scaled.of(torch.tensor([2.0**90, 0.0]))
    assert exact(add([a, b])) == [2.0**90 + 0.0, 2.0]


def test_zeros_never_decide_an_alignment():
    high = Scaled(torch.zeros(2), torch.tensor(5000, dtype=torch.int32))
    low = Scaled.of(torch.tensor([1.0, 3.0]))
    assert exact(add([high, low])) == [1.0, 3.0]
    assert high.measured().exponent == FLOOR


def test_values_sharing_an_exponent_are_added_as_they_are():
    a = Scaled.of(torch.tensor([1.0, 4.0]))
    b = a.map(lambda m: m * 2, bits=1.0)
    total = add([a, b])
    assert total.exponent is a.exponent
    assert exact(total) == [3.0, 12.0]


def test_growth_is_bounded_by_measuring_again():
    value = Scaled.of(torch.ones(3))
    for _ in range(500):
        value = value.map(lambda m: m * 2.0**12, bits=12.0)
        assert torch.isfinite(value.mantissa).all()
    assert (value.mantissa.double().log2() + value.exponent).tolist() == [6000.0] * 3


def test_the_factor_is_a_constant_to_autograd():
    x = torch.tensor([3.0, 5.0], requires_grad=True)
    value = Scaled(x * 2.0**20, torch.zeros((), dtype=torch.int32)).measured()
    gradient = torch.autograd.grad(value.mantissa.sum(), x)[0]
    assert gradient.tolist() == [2.0 ** (20 - int(value.exponent))] * 2


@pytest.mark.parametrize(("dtype", "low", "high"), [(torch.float32, -149, 127), (torch.float64, -1022, 1023)])
def test_powers_of_two_are_exact(dtype, low, high):
    exponents = torch.arange(low, high + 1, dtype=torch.int32)
    powers = power_of_two(exponents, torch.empty(0, dtype=dtype))
    assert powers.dtype == dtype
    assert powers.tolist() == [math.ldexp(1.0, e) for e in exponents.tolist()]
    beyond = torch.tensor([FLOOR, low - 1, high + 1, -FLOOR], dtype=torch.int32)
    assert power_of_two(beyond, powers).tolist() == [0.0, 0.0, math.inf, math.inf]


def test_powers_of_two_are_not_computed():
    """A GPU may round ``pow`` and ``exp2``."""

    class Operations(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            assert func.overloadpacket.__name__ not in ("pow", "exp2", "ldexp")
            return func(*args, **(kwargs or {}))

    with Operations():
        Scaled.of(torch.rand(3)).measured()


def test_exponents_on_a_device_are_not_compared_with_numbers():
    """A GPU would have to be waited for."""

    class Operations(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            assert func.overloadpacket.__name__ not in ("eq", "is_nonzero", "_local_scalar_dense", "item")
            return func(*args, **(kwargs or {}))

    known = Scaled(torch.ones(3), 2, 0.0)
    read = Scaled(torch.ones(3), torch.tensor(1, dtype=torch.int32), 0.0)
    with Operations():
        totals = [add([known, read]), add([read, known]), add([known, Scaled(torch.ones(3), 2, 0.0)])]
    assert [exact(total) for total in totals] == [[6.0] * 3, [6.0] * 3, [8.0] * 3]
