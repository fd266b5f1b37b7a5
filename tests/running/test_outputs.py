"""Differences of outputs, with numbers worked out by hand."""

import math

import pytest
import torch
from torch import nn

from pxframe.running.outputs import difference, outputs


class Scaled(nn.Module):
    def __init__(self, by):
        super().__init__()
        self.by = by

    def forward(self, x):
        return {"logits": self.by * x, "count": torch.tensor(3)}


def test_the_largest_difference_is_relative_to_the_largest_output():
    x, y = torch.tensor([1.0, -4.0]), torch.tensor([0.5, 0.25])
    wanted = [outputs(Scaled(1.0), batch) for batch in (x, y)]
    assert difference(Scaled(1.5), [x, y], wanted) == 0.5
    assert difference(Scaled(1.0), [x, y], wanted) == 0


@pytest.mark.parametrize("by", [math.nan, math.inf, torch.ones(3, 1)])
def test_no_numbers_and_other_shapes_are_infinitely_far(by):
    x = torch.tensor([1.0, 2.0])
    assert difference(Scaled(by), [x], [outputs(Scaled(1.0), x)]) == math.inf
