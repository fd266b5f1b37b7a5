"""Rows of fused weights: layouts in which the rows of queries, keys and values are known by construction."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pxframe.engine.fused import find_fused
from pxframe.engine.tracing.trace import trace_model


class Attention(nn.Module):
    """Two heads of four numbers on tokens of eight; ``split`` makes q, k, v ``[N, heads, tokens, 4]``."""

    def __init__(self, layer, split, name="qkv"):
        super().__init__()
        self.add_module(name, layer)
        self.project, self.split = nn.Linear(8, 8), split
        self.layer = name

    def forward(self, x):
        q, k, v = self.split(self, self.get_submodule(self.layer)(x))
        return self.project(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def thirds(_, x):
    return x.unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)


def interleaved(_, x):
    return x.unflatten(-1, (2, 12)).transpose(1, 2).split(4, -1)


def turned(_, x):
    """Norms and rotary position codes between the layer and the product."""
    q, k, v = thirds(None, x)
    angles = torch.arange(q.shape[2], dtype=x.dtype)[:, None]
    q, k = (F.layer_norm(part, (4,)) for part in (q, k))
    rotated = [torch.cat([-part[..., 2:], part[..., :2]], -1) for part in (q, k)]
    q, k = (part * angles.cos() + other * angles.sin() for part, other in zip((q, k), rotated, strict=True))
    return q, k, v


class Keys(nn.Module):
    """Queries of their own, keys and values from one layer."""

    def __init__(self):
        super().__init__()
        self.q, self.kv = nn.Linear(8, 8), nn.Linear(8, 16)

    def forward(self, x):
        k, v = self.kv(x).chunk(2, -1)
        return F.softmax(self.q(x) @ k.mT, -1) @ v


class Maps(nn.Module):
    """A 1x1 convolution on maps, queries and keys of four channels, values of eight."""

    def __init__(self):
        super().__init__()
        self.qkv = nn.Conv2d(8, 16, 1)

    def forward(self, x):
        q, k, v = self.qkv(x).flatten(2).split([4, 4, 8], 1)
        return v @ (q.mT @ k).softmax(-1).mT


class Stored(nn.Module):
    """A weight ``[in, out]``: its rows are inputs."""

    def __init__(self):
        super().__init__()
        self.qkv = nn.Parameter(torch.randn(8, 24))

    def forward(self, x):
        q, k, v = (x @ self.qkv).chunk(3, -1)
        return F.softmax(q @ k.mT, -1) @ v


class Turned(nn.Module):
    """Keys on the left of the product, and the softmax over its rows."""

    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(8, 24)

    def forward(self, x):
        q, k, v = self.qkv(x).chunk(3, -1)
        return (k @ q.mT).softmax(-2).mT @ v


class TurnedBack(Turned):
    def forward(self, x):
        q, k, v = self.qkv(x).chunk(3, -1)
        return (k @ q.mT).transpose(-1, -2).softmax(-1) @ v


class GatedValues(nn.Module):
    """Values that another part of the same layer gates: not to be told from their gate."""

    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(8, 32)

    def forward(self, x):
        g, q, k, v = self.qkv(x).chunk(4, -1)
        return (q @ k.mT).softmax(-1) @ (F.silu(g) * v)


class Rounded(nn.Module):
    """A weight of many rows that is rounded before it is used."""

    def __init__(self):
        super().__init__()
        self.qkv = nn.Parameter(torch.randn(900, 8))

    def forward(self, x):
        q, k, v = F.linear(x, self.qkv.to(torch.bfloat16).float()).chunk(3, -1)
        return (q @ k.mT).softmax(-1) @ v


class Packed(nn.Module):
    def __init__(self):
        super().__init__()
        self.attend = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x):
        return self.attend(x, x, x)[0]


THIRDS = {"q": [(0, 8)], "k": [(8, 16)], "v": [(16, 24)]}
TOKENS, IMAGE = (1, 3, 8), (1, 8, 2, 2)
CASES = {
    "thirds": (lambda: Attention(nn.Linear(8, 24), thirds), TOKENS, {"qkv.weight": THIRDS}),
    "head by head": (
        lambda: Attention(nn.Linear(8, 24), interleaved),
        TOKENS,
        {"qkv.weight": {"q": [(0, 4), (12, 16)], "k": [(4, 8), (16, 20)], "v": [(8, 12), (20, 24)]}},
    ),
    "norms and rotations between": (lambda: Attention(nn.Linear(8, 24), turned), TOKENS, {"qkv.weight": THIRDS}),
    "keys and values": (Keys, TOKENS, {"kv.weight": {"k": [(0, 8)], "v": [(8, 16)]}}),
    "convolution": (Maps, IMAGE, {"qkv.weight": {"q": [(0, 4)], "k": [(4, 8)], "v": [(8, 16)]}}),
    "torch's attention": (Packed, TOKENS, {"attend.in_proj_weight": THIRDS}),
    "rows are inputs": (Stored, TOKENS, {}),
    "keys on the left": (Turned, TOKENS, {"qkv.weight": THIRDS}),
    "keys on the left, turned": (TurnedBack, TOKENS, {"qkv.weight": THIRDS}),
    "gated values": (GatedValues, TOKENS, {"qkv.weight": {"q": [(8, 16)], "k": [(16, 24)]}}),
    "rounded": (Rounded, TOKENS, {"qkv": {"q": [(0, 300)], "k": [(300, 600)], "v": [(600, 900)]}}),
    "no attention": (lambda: nn.Linear(8, 24), TOKENS, {}),
}


@pytest.mark.parametrize("case", CASES)
def test_rows_are_found_by_what_they_make(case):
    make, shape, expected = CASES[case]
    assert find_fused(trace_model(make().eval(), torch.randn(shape))) == expected
