"""Rows of fused weights: excluded by name, reported when nothing is left of them."""

import re

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import pxframe
from pxframe import PxframeError


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.qkv, self.head = nn.Linear(3, 8), nn.Linear(8, 24), nn.Linear(8, 2)

    def forward(self, x):
        q, k, v = self.qkv(self.embed(x)).chunk(3, -1)
        return self.head(F.scaled_dot_product_attention(q, k, v).mean(1))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Attention()


@pytest.fixture
def batches():
    return [(torch.randn(4, 5, 3), torch.tensor([0, 1, 0, 1]))]


@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("scorer", ["magnitude", "snip", "px"])
def test_excluded_rows_stay_and_are_not_counted(model, batches, scorer, scope):
    exclude = ["head.*", "*.weight[q]", "qkv.weight[k]"]
    ticket = pxframe.prune(model, batches, scorer=scorer, sparsity=0.5, rounds=3, scope=scope, exclude=exclude)
    assert ticket.masks["qkv.weight"][:16].all()
    counted = ticket.masks["embed.weight"].sum() + ticket.masks["qkv.weight"][16:].sum()
    assert counted == (3 * 8 + 8 * 8) / 2
    assert "head.weight" not in ticket.masks


def test_a_layer_keeps_its_share_of_the_rows_that_are_counted(model, batches):
    exclude = ["head.*", "qkv.weight[v]"]
    ticket = pxframe.prune(model, batches, scorer="magnitude", sparsity=0.5, scope="layer", exclude=exclude)
    assert ticket.masks["qkv.weight"][:16].sum() == 16 * 8 / 2
    assert ticket.masks["embed.weight"].sum() == 3 * 8 / 2


def test_excluded_rows_of_channels_and_patterns_stay(model, batches):
    exclude = ["head.*", "embed.*", "qkv.weight[q]"]
    channels = pxframe.prune(model, batches, scorer="magnitude", sparsity=0.5, granularity="channel", exclude=exclude)
    kept = channels.masks["qkv.weight"]
    assert kept[:8].all()
    assert kept[8:].any(1).sum() == 8
    pattern = pxframe.prune(model, batches, scorer="magnitude", granularity="2:4", exclude=exclude)
    kept = pattern.masks["qkv.weight"]
    assert kept[:8].all()
    assert (kept[8:].view(16, 2, 4).sum(-1) == 2).all()


def test_pruned_weights_that_may_return_do_not_take_the_place_of_excluded_rows(model, batches):
    ticket = pxframe.prune(model, batches, scorer="force", sparsity=0.5, rounds=4, exclude=["qkv.weight[q]"])
    assert ticket.masks["qkv.weight"][:8].all()
    assert ticket.kept - 8 * 8 == (ticket.total - 8 * 8) / 2


@pytest.mark.filterwarnings("ignore")
def test_queries_and_keys_that_are_gone_are_named(model, batches, caplog, tmp_path):
    ticket = pxframe.prune(
        model, batches, scorer=dict(type="synflow", factors="recorded"), sparsity=0.7, rounds=2, exclude=["head.*"]
    )
    assert ticket.emptied == ["qkv.weight[q]", "qkv.weight[k]"]
    assert "nothing is left of qkv.weight[q], qkv.weight[k]" in caplog.text
    ticket.save(tmp_path / "t.safetensors")
    assert pxframe.Ticket.load(tmp_path / "t.safetensors").emptied == ticket.emptied
    shared = pxframe.prune(
        model, batches, scorer=dict(type="synflow", factors="shared"), sparsity=0.7, rounds=2, exclude=["head.*"]
    )
    assert not shared.emptied


@pytest.mark.parametrize(
    ("exclude", "message"),
    [
        ("qkv.weight[x]", "no parameter is called 'qkv.weight[x]'"),
        ("embed.weight[q]", "no fused weight has rows 'embed.weight[q]'; did you mean"),
    ],
)
def test_rows_that_are_not_there_cost_one_line(model, batches, exclude, message):
    with pytest.raises(PxframeError, match=re.escape(message)) as error:
        pxframe.prune(model, batches, scorer="magnitude", sparsity=0.5, exclude=[exclude])
    assert "\n" not in str(error.value)


def test_rows_need_data(model):
    with pytest.raises(PxframeError, match="only data show which rows these are; pass batches"):
        pxframe.prune(model, None, scorer="magnitude", sparsity=0.5, exclude=["qkv.weight[q]"])
