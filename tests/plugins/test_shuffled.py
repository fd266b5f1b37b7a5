"""The control that permutes another method's masks within each layer."""

import pytest
import timm
import torch
from torch import nn

import pxframe


def model():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(128, 10),
    )


def data():
    torch.manual_seed(1)
    return [(torch.randn(8, 3, 8, 8), torch.arange(8)) for _ in range(2)]


SETTINGS = [
    {"rounds": 1},
    {"rounds": 4},
    {"rounds": 3, "scope": "layer"},
    {"rounds": 3, "scope": "layer", "distribution": "erk"},
    {"rounds": 3, "granularity": "channel", "exclude": "6.*", "sparsity": 0.5},
    {"rounds": 2, "granularity": dict(type="channel", compute_aware=True), "exclude": "6.*", "sparsity": 0.5},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("of", ["snip", "force", dict(type="ntk_sap", eps=0.1), "random", "px"], ids=str)
def test_layers_keep_as_much_at_other_places(of, settings):
    settings = {"sparsity": 0.8, "seed": 3, "allow_collapse": True, **settings}
    plain = pxframe.prune(model(), data(), of, **settings)
    made = [pxframe.prune(model(), data(), "shuffled", of=of, **{**settings, "seed": seed}) for seed in (3, 3)]
    for name, mask in plain.masks.items():
        assert made[0].masks[name].sum() == mask.sum()
        assert torch.equal(made[0].masks[name], made[1].masks[name])
    partial = [n for n, mask in plain.masks.items() if mask.any() and not mask.all()]
    assert not partial or any(not torch.equal(made[0].masks[n], plain.masks[n]) for n in partial)


def test_another_seed_gives_other_places():
    a, b = (pxframe.prune(model(), None, "shuffled", of="magnitude", sparsity=0.8, seed=seed) for seed in (3, 4))
    assert all(not torch.equal(a.masks[n], mask) for n, mask in b.masks.items())


@pytest.mark.parametrize("of", ["random", "ntk_sap", "force"])
def test_the_places_are_independent_of_the_method_s_own(of):
    """As many weights are kept by both as chance gives, within five standard deviations."""
    settings = dict(sparsity=0.7, rounds=3)
    plain = pxframe.prune(model(), data(), of, **settings)
    moved = pxframe.prune(model(), data(), "shuffled", of=of, **settings)
    for name, mask in plain.masks.items():
        share = float(mask.double().mean())
        deviation = mask.numel() ** 0.5 * share * (1 - share)
        both = float((mask & moved.masks[name]).sum())
        assert abs(both - mask.numel() * share**2) <= 5 * deviation + 1


def test_scores_are_permuted_and_nothing_else():
    plain = pxframe.score(model(), data(), "snip", seed=5)
    moved = pxframe.score(model(), data(), "shuffled", of="snip", seed=5)
    for name, score in plain.items():
        assert not torch.equal(moved[name], score)
        assert torch.equal(moved[name].flatten().sort().values, score.flatten().sort().values)


def test_what_is_held_stays():
    torch.manual_seed(0)
    vit = timm.create_model("vit_tiny_patch16_224", depth=1, img_size=32, num_classes=4)
    batches = [(torch.randn(2, 3, 32, 32), torch.arange(2))]
    settings = dict(sparsity=0.8, rounds=2, exclude=["*.qkv.weight[q]", "head.*"], scope="global")
    plain = pxframe.prune(vit, batches, "snip", **settings)
    moved = pxframe.prune(vit, batches, "shuffled", of="snip", **settings)
    for name, mask in plain.masks.items():
        assert moved.masks[name].sum() == mask.sum()
    assert moved.masks["blocks.0.attn.qkv.weight"][:192].all()


def test_it_takes_over_what_the_core_asks_of_a_scorer():
    pair = [pxframe.plugin.registry.build("scorer", s) for s in ("force", dict(type="shuffled", of="force"))]
    for key in ("needs", "rounds", "revives", "defaults"):
        assert getattr(pair[0], key) == getattr(pair[1], key)
    assert pair[1].options() == {"of": "force"}
    with pytest.raises(pxframe.PxframeError, match="needs labels"):
        pxframe.prune(model(), None, "shuffled", of="snip")


def test_mistakes_cost_one_line():
    for of, words in (
        ("snap", "no scorer 'snap'; did you mean 'snip'"),
        (dict(type="grasp", temp=1), "no option 'temp'"),
    ):
        with pytest.raises(pxframe.PxframeError, match=f"shuffled: 'of'.*{words}"):
            pxframe.prune(model(), data(), "shuffled", of=of)
    with pytest.raises(pxframe.PxframeError, match="'of' has the setting 'rounds'; put it beside 'of'"):
        pxframe.prune(model(), data(), "shuffled", of=dict(type="snip", rounds=2))


@pytest.mark.parametrize("of", ["sparsegpt", "cap"])
def test_training_starts_from_weights_for_the_moved_masks(of):
    """And not from those that make up for the other scorer's choice, which are zero where the control keeps some."""
    ticket = pxframe.prune(model(), data(), "shuffled", of=of, sparsity=0.6, rounds=2, scope="layer")
    for name, mask in ticket.masks.items():
        assert torch.equal(ticket.start[name] != 0, mask)
