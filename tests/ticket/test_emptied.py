"""Which layers have almost nothing left: counted entry by entry, and of ordinary tickets."""

import random

import pytest
import torch

import pxframe
from pxframe.ticket.ticket import Ticket


def named(masks, fused):
    """The rule, from its words."""
    entries = {name: mask.flatten(1).tolist() for name, mask in masks.items()}
    every = [row for rows in entries.values() for row in rows]
    share = sum(map(sum, every)) / sum(map(len, every))

    def is_nearly_empty(rows):
        kept, inputs = sum(map(sum, rows)), len(rows[0])
        return kept > 0 and kept < len(rows) and kept < inputs and kept / (len(rows) * inputs) < share / 10

    found = {name: sum(map(sum, rows)) for name, rows in entries.items() if is_nearly_empty(rows)}
    for name, parts in fused.items():
        for part, ranges in parts.items():
            rows = [row for start, stop in ranges for row in entries[name][start:stop]]
            if name not in found and is_nearly_empty(rows):
                found[f"{name}[{part}]"] = sum(map(sum, rows))
    return found


@pytest.mark.parametrize("seed", range(30))
def test_the_rule_entry_by_entry(seed):
    rng, torch_rng = random.Random(seed), torch.Generator().manual_seed(seed)
    shapes = {"a": (20, 30), "conv": (24, 3, 3, 3), "depthwise": (40, 1, 3, 3), "qkv": (36, 12), "big": (60, 60)}
    masks = {n: torch.rand(s, generator=torch_rng) < rng.choice([0, 0.005, 0.02, 0.2, 1]) for n, s in shapes.items()}
    masks["big"][0, 0] = True
    fused = {"qkv": {"q": [(0, 12)], "k": [(12, 18), (30, 36)], "v": [(18, 30)]}}
    masks["qkv"][:12] &= torch.rand(12, 12, generator=torch_rng) < rng.choice([0.02, 1])
    assert Ticket(masks, {"fused_rows": fused}).nearly_emptied == named(masks, fused)


def test_whole_layers_and_parts_are_named():
    masks = {"all": torch.ones(30, 30, dtype=torch.bool), "few": torch.zeros(30, 30, dtype=torch.bool)}
    masks["few"][3, :4] = True
    masks["qkv"] = masks["all"].clone()
    masks["qkv"][:10] = masks["few"][:10]
    fused = {"qkv": {"q": [(0, 10)], "k": [(10, 20)], "v": [(20, 30)]}}
    assert Ticket(masks, {"fused_rows": fused}).nearly_emptied == {"few": 4, "qkv[q]": 4} == named(masks, fused)


def test_a_small_layer_of_a_very_sparse_ticket_is_no_cause_for_alarm():
    kept = torch.zeros(16, 3, 3, 3, dtype=torch.bool)
    kept[:9, 0, 0, 0] = True  # fewer than its 16 outputs, as of all layers at this sparsity
    wide = torch.arange(360 * 100).view(360, 100) % 50 == 0
    assert not Ticket({"conv1": kept, "wide": wide}).nearly_emptied


@pytest.mark.parametrize(("scorer", "most"), [("magnitude", 2), ("synflow", 0), ("random", 0)])
def test_ordinary_tickets_of_a_residual_network_raise_little_alarm(scorer, most):
    torch.manual_seed(0)
    model = pxframe.build_backbone(dict(type="cifar_resnet", depth=20))
    ticket = pxframe.prune(model, [(torch.rand(2, 3, 16, 16), None)], scorer=scorer, sparsity=0.982)
    assert len(ticket.nearly_emptied) <= most


def test_a_transformer_that_lost_its_mlps_raises_it():
    torch.manual_seed(0)
    model = pxframe.build_backbone(
        dict(type="timm", model="vit_tiny_patch16_224", pretrained=False, img_size=32, depth=4, embed_dim=96)
    )
    ticket = pxframe.prune(model, [(torch.rand(2, 3, 32, 32), None)], scorer="px", sparsity=0.6, rounds=10)
    assert any("mlp" in name for name in ticket.nearly_emptied)
