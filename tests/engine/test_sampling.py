"""Reading maps at positions that are made from the data, against an enumeration of all paths (``oracle``)."""

import math
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from cases import CHECKS, make_case
from refusal import refused
from torch import nn
from torchvision.ops import DeformConv2d, deform_conv2d

import pxframe


@pytest.fixture(params=[False, True], ids=["dense", "masked"])
def masked(request):
    return request.param


def share(distance):
    return max(0.0, 1 - abs(distance))


class Warped(nn.Module):
    """A 2x2 map, read at four positions that a layer computes."""

    def __init__(self):
        super().__init__()
        self.map, self.flow, self.out = nn.Linear(4, 4), nn.Linear(4, 8), nn.Linear(4, 2)

    def forward(self, x):
        maps, flow = torch.relu(self.map(x)).view(-1, 1, 2, 2), self.flow(x).tanh().view(-1, 2, 2, 2)
        return self.out(F.grid_sample(maps, 1.4 * flow, align_corners=True).flatten(1))


@pytest.mark.parametrize("check", CHECKS)
def test_a_grid_made_from_the_data_is_recorded_and_open_reads_the_mean(check, masked):
    torch.manual_seed(0)

    def weight(row, column):
        """Of the pixel in f: the position -1 is pixel 0, and 1 is pixel 1; outside the map is nothing."""

        def function(z):
            x, y = ((1.4 * math.tanh(value) + 1) / 2 for value in z)
            return share(x - column) * share(y - row)

        return function

    def build(net, w):
        x = net.inputs(4)
        pixels = net.relu(net.linear(x, "map.weight", 4, w["map.bias"]))
        flow = net.linear(x, "flow.weight", 8, w["flow.bias"])
        read = []
        for place in range(4):
            at = flow[2 * place : 2 * place + 2]
            factors = [net.factor(at, weight(*divmod(pixel, 2)), 1 / 4) for pixel in range(4)]
            read.append(net.add(edges=[(pixel, None, 1.0) for pixel in pixels], factors=factors))
        return net.linear(read, "out.weight", 2, w["out.bias"])

    CHECKS[check](make_case(Warped(), (4,), build, masked))


class Deformed(nn.Module):
    """A deformable 2x2 convolution of a 3x3 map; offsets, and the mask of its modulated form, are layers' results."""

    def __init__(self, modulated):
        super().__init__()
        self.offset, self.strength = nn.Linear(9, 32), nn.Linear(9, 16)
        self.conv = DeformConv2d(1, 2, 2)
        self.modulated = modulated

    def forward(self, x):
        flat = x.flatten(1)
        mask = torch.sigmoid(self.strength(flat)).view(-1, 4, 2, 2) if self.modulated else None
        return torch.relu(self.conv(x, self.offset(flat).view(-1, 8, 2, 2), mask))


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("modulated", [False, True])
def test_paths_of_a_deformable_convolution_run_through_its_map(modulated, check, masked):
    """With the gates open it is a plain convolution: no offset, and a mask of 1."""
    torch.manual_seed(1)

    def build(net, w):
        x = net.inputs(9)
        offset = net.linear(x, "offset.weight", 32, w["offset.bias"])
        strength = net.linear(x, "strength.weight", 16, w["strength.bias"])
        units = []
        for channel, row, column in product(range(2), range(2), range(2)):
            edges, factors = [], []
            for tap, pixel in product(range(4), range(9)):
                place = row * 2 + column
                reads = [offset[(2 * tap) * 4 + place], offset[(2 * tap + 1) * 4 + place], strength[tap * 4 + place]]
                down, right = row + tap // 2 - pixel // 3, column + tap % 2 - pixel % 3

                def factor(z, down=down, right=right):
                    mask = 1 / (1 + math.exp(-z[2])) if modulated else 1.0
                    return share(down + z[0]) * share(right + z[1]) * mask

                edges.append((x[pixel], ("conv.weight", channel * 4 + tap), 1.0))
                factors.append(net.factor(reads, factor, float(down == right == 0)))
            units.append(net.add(edges=edges, factors=factors, bias=float(w["conv.bias"][channel])))
        return net.relu(units)

    CHECKS[check](make_case(Deformed(modulated), (1, 3, 3), build, masked))


class Still(nn.Module):
    """A deformable convolution with groups, stride, padding and dilation whose offsets are given, and whole numbers."""

    options = dict(stride=(2, 1), padding=(2, 1), dilation=(1, 2))

    def __init__(self, plain):
        super().__init__()
        self.weight, self.plain = nn.Parameter(torch.randn(4, 2, 3, 2)), plain

    def forward(self, x):
        if self.plain:
            return F.conv2d(x, self.weight, groups=2, **self.options)
        return deform_conv2d(x, torch.zeros(len(x), 4 * 6, 4, 6, dtype=x.dtype), self.weight, **self.options)


@pytest.mark.parametrize("scorer", ["px", dict(type="px", variant="joint"), "synflow", "snip", "phew"], ids=str)
def test_without_offsets_it_is_a_convolution(scorer):
    torch.manual_seed(2)
    plain, still = Still(True).double(), Still(False).double()
    still.load_state_dict(plain.state_dict())
    batches = [(torch.randn(2, 4, 5, 6, dtype=torch.float64), None)]
    settings = dict(sparsity=0.5, rounds=1, loss=lambda output, _: output.square().sum())
    tickets = [pxframe.prune(model, batches, scorer, **settings) for model in (plain, still)]
    assert torch.equal(tickets[0].masks["weight"], tickets[1].masks["weight"])
    assert tickets[0].meta["macs"] == tickets[1].meta["macs"]
    if scorer != "phew":
        one, other = (pxframe.score(model, batches, scorer, loss=settings["loss"]) for model in (plain, still))
        assert torch.allclose(one["weight"], other["weight"], rtol=1e-9)


def test_channels_of_a_deformable_convolution_are_found():
    torch.manual_seed(3)
    model = Deformed(True)
    batches = [(torch.randn(4, 1, 3, 3), torch.zeros(4, 2, 2).long())]
    exclude = ["offset.*", "strength.*"]
    ticket = pxframe.prune(model, batches, "snip", granularity="channel", sparsity=0.5, exclude=exclude)
    assert ticket.masks["conv.weight"].flatten(1).any(1).sum() == 1


class Grouped(nn.Module):
    """A deformable convolution whose maps' channels are moved by two offsets, or by one that is given twice."""

    def __init__(self, offset_groups):
        super().__init__()
        self.offset, self.conv = nn.Conv2d(4, 18, 3, padding=1), DeformConv2d(4, 4, 3, padding=1)
        self.repeat = 2 // offset_groups

    def forward(self, x):
        offset = self.offset(x)
        return self.conv(x, offset if self.repeat == 2 else torch.cat([offset, offset], 1))


@pytest.mark.parametrize("scorer", ["px", dict(type="px", variant="joint")], ids=str)
def test_maps_in_channels_last_give_the_same_scores(scorer):
    torch.manual_seed(4)
    one, two = Grouped(1), Grouped(2)
    two.load_state_dict(one.state_dict())
    x = torch.randn(2, 4, 6, 6)
    expected = pxframe.score(one, [(x, None)], scorer)
    for given in (x, x.to(memory_format=torch.channels_last)):
        found = pxframe.score(two, [(given, None)], scorer)
        assert all(torch.allclose(found[name], score, rtol=1e-4) for name, score in expected.items())


class Read(nn.Module):
    """A map of 64 pixels a side, read at given positions, halfway between its pixels."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 1, bias=False)

    def forward(self, x):
        at = (torch.arange(64) + 1) * 2 / 64 - 1
        grid = torch.stack(torch.meshgrid(at, at, indexing="xy"), -1).expand(len(x), -1, -1, -1).to(x.dtype)
        return F.grid_sample(self.conv(x), grid, align_corners=False)


@pytest.mark.parametrize("scorer", ["px", "synflow"])
def test_positions_of_a_bfloat16_model_lose_no_neighbours(scorer):
    torch.manual_seed(5)
    model, x = Read(), torch.rand(1, 1, 64, 64).bfloat16()
    exact = pxframe.score(model, [(x.float(), None)], scorer)["conv.weight"]
    found = pxframe.score(model.bfloat16(), [(x, None)], scorer)["conv.weight"]
    assert torch.allclose(found, exact, rtol=0.05)


class Bicubic(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 1)

    def forward(self, x):
        grid = torch.stack([x[:, 0], x[:, 0]], -1)
        return F.grid_sample(self.conv(x), grid, mode="bicubic", align_corners=False)


def test_a_bicubic_grid_is_refused():
    call = lambda: pxframe.score(Bicubic(), [(torch.rand(1, 1, 4, 4), None)], "px")  # noqa: E731
    refused(call, "grid_sampler_2d", "bicubic")
