import itertools

import pytest

from pxframe.selection.schedule import SCHEDULES


@pytest.mark.parametrize("name", SCHEDULES)
def test_starts_dense_ends_exactly_at_the_density_and_falls(name):
    densities = [SCHEDULES[name](0.018, t, 100) for t in range(101)]
    assert densities[0] == 1.0
    assert densities[100] == 0.018
    assert all(a > b for a, b in itertools.pairwise(densities))


def test_exponential_keeps_the_same_share_and_linear_removes_the_same_number():
    exponential = [SCHEDULES["exponential"](0.1, t, 4) for t in range(5)]
    assert [b / a for a, b in itertools.pairwise(exponential)] == pytest.approx([0.1**0.25] * 4)
    linear = [SCHEDULES["linear"](0.1, t, 4) for t in range(5)]
    assert [a - b for a, b in itertools.pairwise(linear)] == pytest.approx([0.225] * 4)
