"""What a ticket tells about the network that is left, against torch's own count of operations."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import pxframe
from pxframe.ticket.layers import describe, layers
from pxframe.ticket.ticket import Ticket
from pxframe_tools import cli


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(4, 6, 3, groups=2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 5),
    )


X = torch.rand(7, 3, 12, 12)


def test_costs_are_those_that_torch_counts(model):
    ticket = pxframe.prune(model, [(X, None)], scorer="random", sparsity=0.5, scope="layer")
    found = {layer.name: layer for layer in layers(ticket)}
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(X[:1])
    assert 2 * sum(layer.macs[1] for layer in found.values()) == counter.get_total_flops()
    assert found["0.weight"].macs == (54 * 6 * 6, 108 * 6 * 6)  # of 4x3x3x3 weights, each used at 6x6 places
    assert ticket.meta["input"] == [3, 12, 12]


def test_units_and_emptied_layers_are_counted(model, tmp_path, capsys):
    masks = {n: torch.zeros_like(p, dtype=torch.bool) for n, p in model.named_parameters() if p.ndim > 1}
    masks["0.weight"][[0, 0, 3], 0, [0, 1, 2], 0] = True
    ticket = pxframe.Ticket(masks, {"scorer": "mine", "macs": {"0.weight": 3888, "2.weight": 1728, "5.weight": 30}})
    first, second, last = layers(ticket)
    assert (first.kept, first.total, first.units) == (3, 108, 2)
    assert (second.units, last.units) == (0, 0)
    ticket.save(tmp_path / "t.safetensors")
    assert cli.main(["show", str(tmp_path / "t.safetensors")]) == 0
    shown = capsys.readouterr().out
    assert "2 of 4" in shown
    assert "108 of 3,888" in shown
    assert "emptied layers: 2.weight, 5.weight" in shown
    assert "216 of 11,292 FLOPs (1.91%)" in shown


def test_without_data_there_is_no_cost(model, tmp_path, capsys):
    ticket = pxframe.prune(model, None, scorer="magnitude", sparsity=0.5)
    assert [layer.macs for layer in layers(ticket)] == [None] * 3
    ticket.save(tmp_path / "t.safetensors")
    assert cli.main(["show", str(tmp_path / "t.safetensors")]) == 0
    assert "FLOPs" not in capsys.readouterr().out


def test_describe_names_emptied_layers():
    ticket = Ticket({"a": torch.tensor([True, False]), "b": torch.tensor([False])}, {"scorer": "px"})
    assert describe(ticket) == "px kept 1 of 3 weights (66.67% sparse); nothing left of b"


def test_describe_names_left_dense_and_collapsed():
    made = Ticket({"a": torch.tensor([True])}, {"scorer": "px", "left_dense": ["pos"], "collapsed": "no path"})
    assert describe(made) == "px kept 1 of 1 weights (0.00% sparse); not prunable, left dense: pos; collapsed: no path"
