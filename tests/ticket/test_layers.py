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
    assert "108 of 5,646 MACs (1.91%), or 216 of 11,292 FLOPs: a multiply-accumulate" in shown


def test_without_data_there_is_no_cost(model, tmp_path, capsys):
    ticket = pxframe.prune(model, None, scorer="magnitude", sparsity=0.5)
    assert [layer.macs for layer in layers(ticket)] == [None] * 3
    ticket.save(tmp_path / "t.safetensors")
    assert cli.main(["show", str(tmp_path / "t.safetensors")]) == 0
    assert "FLOPs" not in capsys.readouterr().out


def test_describe_names_emptied_layers():
    ticket = Ticket({"a": torch.tensor([True, False]), "b": torch.tensor([False])}, {"scorer": "px"})
    assert describe(ticket) == "px kept 1 of 3 weights (66.67% sparse); nothing left of b"


def test_describe_names_layers_with_almost_nothing_left():
    masks = {"a": torch.ones(9, 9, dtype=torch.bool), "b": torch.arange(81).view(9, 9) < 2}
    assert (
        describe(Ticket(masks)) == "a ticket kept 83 of 162 weights (48.77% sparse); almost nothing left of b (2 kept)"
    )


def test_show_gives_the_rows_of_fused_weights_under_their_layer(tmp_path, capsys):
    mask = torch.zeros(12, 2, dtype=torch.bool)
    mask[0:3, 0] = mask[4, :] = True  # of 4 rows each: 3 weights of the queries, 2 of the keys, none of the values
    fused = {"qkv.weight": {"v": [(8, 12)], "k": [(4, 8)], "q": [(0, 2), (2, 4)]}}
    Ticket({"qkv.weight": mask}, {"fused_rows": fused, "macs": {"qkv.weight": 240}}).save(tmp_path / "t")
    assert cli.main(["show", str(tmp_path / "t")]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    at = next(i for i, line in enumerate(lines) if line[:2] == ["qkv.weight", "12x2"])
    assert [" ".join(line) for line in lines[at : at + 4]] == [
        "qkv.weight 12x2 5 20.83% 4 of 12 50 of 240",
        "[q] 4x2 3 37.50% 3 of 4 30 of 80",
        "[k] 4x2 2 25.00% 1 of 4 20 of 80",
        "[v] 4x2 0 emptied 0 of 4 0 of 80",
    ]


def test_describe_names_left_dense_and_collapsed():
    made = Ticket({"a": torch.tensor([True])}, {"scorer": "px", "left_dense": ["pos"], "collapsed": "no path"})
    assert describe(made) == "px kept 1 of 1 weights (0.00% sparse); not prunable, left dense: pos; collapsed: no path"
