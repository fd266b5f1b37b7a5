"""Wrappers, and names without them."""

import pytest
import torch
from torch import nn

from pxframe.running.wrappers import plain_name, unwrapped


@pytest.mark.parametrize(
    "wrap",
    [
        lambda m: m,
        nn.DataParallel,
        lambda m: torch.compile(m, backend="eager"),
        lambda m: torch.compile(nn.DataParallel(m), backend="eager"),
        lambda m: nn.DataParallel(torch.compile(m, backend="eager")),
    ],
)
def test_the_module_inside_is_found_and_so_are_its_names(wrap):
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1))
    wrapped = wrap(model)
    assert unwrapped(wrapped) is model
    assert [plain_name(n) for n in wrapped.state_dict()] == list(model.state_dict())


def test_a_module_that_is_only_called_module_is_no_wrapper():
    model = nn.ModuleDict({"module": nn.Linear(1, 1)})
    assert unwrapped(model) is model


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("module.conv.weight", "conv.weight"),
        ("backbone._orig_mod.module.conv.weight", "backbone.conv.weight"),
        ("backbone.module.", "backbone."),
        ("module.", ""),
        ("", ""),
        ("module", "module"),
        ("modules.weight", "modules.weight"),
    ],
)
def test_plain_names(name, plain):
    assert plain_name(name) == plain
