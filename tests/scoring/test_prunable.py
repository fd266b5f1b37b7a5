"""Which parameters count as weights of convolutions and linear maps."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pxframe.base.errors import PxframeError
from pxframe.scoring.prunable import prunable


class Bare(nn.Module):
    """Bare parameters: a projection and a kernel that are multiplied, a table and a token that are added."""

    def __init__(self):
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(4, 3, 3, 3))
        self.position = nn.Parameter(torch.randn(1, 4, 8, 8))
        self.projection = nn.Parameter(torch.randn(4, 5))
        self.head = nn.Linear(5, 2)

    def forward(self, x):
        x = F.conv2d(x, self.kernel, padding=1) + self.position
        return self.head(x.mean((2, 3)) @ self.projection)


def test_layers_of_torch_need_no_data():
    model = nn.ModuleDict(
        {
            "conv": nn.Conv1d(2, 3, 3),
            "up": nn.ConvTranspose2d(3, 4, 2),
            "bn": nn.BatchNorm1d(3),
            "attention": nn.MultiheadAttention(8, 2),
            "words": nn.Embedding(10, 8),
            "linear": nn.Linear(8, 3),
        }
    )
    assert prunable(model) == [
        "conv.weight",
        "up.weight",
        "attention.in_proj_weight",
        "attention.out_proj.weight",
        "linear.weight",
    ]


def test_bare_parameters_count_by_their_use():
    assert prunable(Bare(), torch.randn(2, 3, 8, 8)) == ["kernel", "projection", "head.weight"]


def test_bare_parameters_without_data_are_an_error_until_excluded():
    with pytest.raises(PxframeError, match=r"cannot tell without data whether kernel, position, projection"):
        prunable(Bare())
    assert prunable(Bare(), exclude=["kernel", "position", "projection"]) == ["head.weight"]


def test_exclude_takes_patterns_and_refuses_what_matches_nothing():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 2))
    assert prunable(model, exclude=["2.*"]) == ["0.weight", "1.weight"]
    with pytest.raises(PxframeError, match=r"no parameter is called '3\.weight'"):
        prunable(model, exclude=["3.weight"])
    with pytest.raises(PxframeError, match="no prunable weight"):
        prunable(model, exclude=["*"])


def test_a_shared_weight_is_listed_once():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    assert prunable(model) == ["0.weight"]
