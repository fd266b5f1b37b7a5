"""PX on scoring data of several sizes: each size has an h of its own, and the results add up."""

import pytest
import torch
from torch import nn

import pxframe
from pxframe.base.errors import PxframeError
from pxframe.network.net import Net
from pxframe.scoring.paths import jacobian_norms

SIZES = [(6, 8), (8, 6), (6, 8), (5, 5)]


def model(pooled):
    torch.manual_seed(0)
    body = [nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 3, padding=1)]
    return nn.Sequential(*body, *([nn.AdaptiveAvgPool2d(1), nn.Flatten()] if pooled else [])).double().eval()


def batches():
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(2, 2, *size, dtype=torch.float64, generator=generator), None) for size in SIZES]


@pytest.mark.parametrize("variant", ["paper", "joint"])
@pytest.mark.parametrize("pooled", [False, True])
def test_scores_of_several_sizes_are_the_sum_of_the_scores_of_each(pooled, variant):
    network = model(pooled)
    scorer = dict(type="px", variant=variant)
    found = pxframe.score(network, batches(), scorer)
    each = [pxframe.score(network, [batch], scorer) for batch in batches()]
    for name, scores in found.items():
        assert torch.allclose(scores, torch.stack([part[name] for part in each]).sum(0), rtol=1e-9, atol=0)


def test_calibrated_scores_read_every_size():
    """Each size alone would give other variances; with equal variances the sum would hold again."""
    network = model(pooled=False)
    scores = pxframe.score(network, batches(), dict(type="px", variant="calibrated"))
    whole = pxframe.score(network, [*batches(), *batches()], dict(type="px", variant="calibrated"))
    for name, twice in whole.items():  # the same data twice: the same variances, twice the counts
        assert torch.allclose(twice, 2 * scores[name], rtol=1e-9, atol=0)


def test_the_norms_are_of_one_size():
    network = model(pooled=False)
    net = Net(network, {"0.weight": torch.ones_like(network[0].weight, dtype=torch.bool)})
    with pytest.raises(PxframeError, match="samples of 3 sizes; measure one size at a time"):
        jacobian_norms(net, batches())
