"""Filters in the frequency domain, against the magnitudes of explicit matrices of the transform."""

import cmath

import pytest
import torch
from torch import nn

from pxframe.network.net import Net
from pxframe.scoring.paths import active_paths, open_paths
from pxframe.scoring.saliencies import contract, saliencies


class Filter(nn.Module):
    """x -> irfft(w * rfft(x)), the complex w as pairs of real numbers."""

    def __init__(self, size, norm):
        super().__init__()
        self.size, self.norm = size, norm
        self.weight = nn.Parameter(torch.randn(size // 2 + 1, 2))

    def forward(self, x):
        spectrum = torch.fft.rfft(x, norm=self.norm) * torch.view_as_complex(self.weight)
        return torch.fft.irfft(spectrum, n=self.size, norm=self.norm)


def magnitudes(size, norm):
    """|entries| of the transform and of its inverse."""
    forward = [[abs(cmath.exp(-2j * cmath.pi * k * n / size)) for n in range(size)] for k in range(size)]
    scales = {"ortho": (size**-0.5, size**-0.5), "backward": (1.0, 1 / size), "forward": (1 / size, 1.0)}[norm]
    return [torch.tensor(forward, dtype=torch.float64) * scale for scale in scales]


@pytest.mark.parametrize("norm", ["ortho", "backward", "forward"])
@pytest.mark.parametrize("size", [5, 6])
@pytest.mark.parametrize("power", [1, 2])
def test_a_filter_in_the_frequency_domain(size, norm, power):
    torch.manual_seed(0)
    model = Filter(size, norm).double()
    net = Net(model, {"weight": torch.ones(size // 2 + 1, 2, dtype=torch.bool)})
    x = torch.randn(2, size, dtype=torch.float64)
    there, back = magnitudes(size, norm)
    half = torch.view_as_complex(model.weight.detach()).abs()
    full = half[[min(k, size - k) for k in range(size)]]  # a frequency and its conjugate have one weight
    values, weights = open_paths(net, x, power, leaves=True)
    found = (values[0].mantissa.detach() * 2.0 ** int(values[0].exponent)).flatten()
    by_frequency = back.pow(power) * full.pow(power) * there.pow(power).sum(1)  # [position, frequency]
    assert torch.allclose(found, by_frequency.sum(1), rtol=1e-9)
    scores = saliencies(net, contract(values), weights)["weight"]
    for k in range(size // 2 + 1):
        paths = by_frequency[:, [i for i in range(size) if min(i, size - i) == k]].sum()
        share = model.weight[k].detach().abs().pow(power)
        assert torch.allclose(scores[k], paths * share / share.sum(), rtol=1e-9)
    counts, _ = active_paths(net, [(x, None)])
    [value] = counts[0].values
    wanted = size * x.square().sum() * torch.ones(size, dtype=torch.float64)
    assert torch.allclose((value.mantissa * 2.0 ** int(value.exponent)).flatten(), wanted, rtol=1e-9)
