"""The density from which on CSR is faster, with invented times."""

import pytest
import torch
from torch import nn

from pxframe.speed.break_even import BreakEven, break_even, thinned
from pxframe.speed.csr import missing

pytestmark = pytest.mark.skipif(bool(missing()), reason="this torch has no product of CSR matrices")


@pytest.mark.parametrize(
    ("csr", "wanted"),
    [
        ({0.5: 3.0, 0.1: 1.9, 0.01: 1.0}, 0.1),
        ({0.5: 1.0, 0.1: 0.9, 0.01: 0.8}, 0.5),
        ({0.5: 1.0, 0.1: 2.5, 0.01: 1.0}, 0.01),  # a lucky measurement at 0.5 counts for nothing
        ({0.5: 3.0, 0.1: 2.0, 0.01: 2.0}, None),
    ],
)
def test_faster_from(csr, wanted):
    assert BreakEven("linear", 4, 6, 10, 2.0, csr).faster_from == wanted


def test_the_largest_sizes_are_timed_once_each():
    """Of seven layers: two are of one size, one has a large kernel, and one is too small to be among the three."""
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.Conv2d(8, 16, 1, stride=2),
        nn.Conv2d(16, 16, 1),
        nn.Conv2d(16, 16, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 4),
        nn.Linear(4, 2),
    )
    asked = []

    def timing(networks, x):
        densities = {n: float(m.weight.count_nonzero() / m.weight.numel()) for n, m in networks.items()}
        asked.append((tuple(x.shape), densities))
        return {n: (0.0, 1.0 if n == "dense" else 4 * float(n), 9.0) for n in networks}

    x, state = torch.randn(2, 3, 8, 8), torch.get_rng_state()
    weights = [p.clone() for p in model.parameters()]
    found = break_even(model, x, most=3, densities=(0.5, 0.1), timing=timing)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(p, w) for p, w in zip(model.parameters(), weights, strict=True))
    times = {0.5: 2.0, 0.1: 0.4}
    assert found == [
        BreakEven("1x1 convolution", 16, 16, 2 * 16, 1.0, times),
        BreakEven("1x1 convolution", 16, 8, 2 * 16, 1.0, times),
        BreakEven("linear", 4, 16, 2, 1.0, times),
    ]
    assert found[0].faster_from == 0.1
    assert [shape for shape, _ in asked] == [(2, 16, 4, 4), (2, 8, 8, 8), (2, 16)]
    for _, densities in asked:
        assert densities["dense"] == 1
        assert densities["0.5"] == pytest.approx(0.5, abs=0.2)
        assert densities["0.1"] == pytest.approx(0.1, abs=0.1)


def test_a_network_without_such_layers():
    assert break_even(nn.Sequential(nn.Conv2d(3, 4, 3)), torch.randn(1, 3, 8, 8)) == []


def test_thinned_layers():
    layer = nn.Linear(200, 100)
    weight = layer.weight.clone()
    assert float((thinned(layer, 0.1).weight != 0).float().mean()) == pytest.approx(0.1, abs=0.01)
    assert torch.equal(layer.weight, weight)
