"""Channels that can only be removed together are one entry."""

import pytest
import timm
import torch
from torch import nn

import pxframe
from pxframe.selection.granularity import Channel
from pxframe.selection.joined import join_channels


class Residual(nn.Module):
    """``stem`` and ``out`` make one stream of four channels; ``inner`` is alone."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, padding=1)
        self.inner = nn.Conv2d(4, 6, 3, padding=1)
        self.out = nn.Conv2d(6, 4, 1)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        x = self.stem(x)
        x = x + self.out(self.inner(x).relu())
        return self.head(x.mean((2, 3)))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Residual().eval()


X = torch.randn(2, 2, 5, 5, generator=torch.Generator().manual_seed(0))


def pruned(model, groups="sum", sparsity=0.5, **options):
    settings = {"exclude": "head.*", "granularity": {"type": "channel", "groups": groups}, **options}
    return pxframe.prune(model, [(X, None)], settings.pop("scorer", "magnitude"), sparsity, **settings)


@pytest.mark.parametrize("groups", ["sum", "mean", "max"])
def test_the_score_of_a_group(model, groups):
    """Four channels of the stream and six inside: of these ten entries the five with the highest scores stay."""
    rows = {
        name: model.get_parameter(f"{name}.weight").detach().abs().flatten(1).sum(1)
        for name in ("stem", "out", "inner")
    }
    stream = torch.stack([rows["stem"], rows["out"]])
    stream = {"sum": stream.sum(0), "mean": stream.mean(0), "max": stream.amax(0)}[groups]
    ranked = torch.cat([stream, rows["inner"]])
    kept = torch.zeros(10, dtype=torch.bool)
    kept[ranked.topk(5).indices] = True
    ticket = pruned(model, groups, scorer={"type": "magnitude"}, allow_collapse=True)
    assert torch.equal(ticket.masks["stem.weight"].flatten(1).any(1), kept[:4])
    assert torch.equal(ticket.masks["out.weight"].flatten(1).all(1), kept[:4])
    assert torch.equal(ticket.masks["inner.weight"].flatten(1).all(1), kept[4:])
    assert ticket.meta["granularity"] == {"type": "channel", "compute_aware": False, "groups": groups}


def test_the_cost_of_a_group_is_that_of_all_its_layers(model):
    names = {"stem.weight", "inner.weight", "out.weight"}
    joined = join_channels(Channel(compute_aware=True, groups="sum"), model, X, names)
    masks = {name: torch.ones_like(model.get_parameter(name), dtype=torch.bool) for name in names}
    costs = joined.entry_costs({"stem.weight": 400, "out.weight": 40, "inner.weight": 60}, masks)
    assert costs == {"stem.weight": 110.0, "inner.weight": 10.0}


def test_with_a_layer_that_is_excluded_its_group_stays_dense(model):
    ticket = pruned(model, exclude=["head.*", "out.*"])
    assert set(ticket.masks) == {"inner.weight"}
    assert ticket.masks["inner.weight"].flatten(1).any(1).sum() == 3


def test_several_rounds_scopes_and_distributions(model):
    for options in ({"rounds": 3, "scorer": "synflow"}, {"scope": "layer"}, {"scope": "layer", "distribution": "erk"}):
        ticket = pruned(model, **options)
        rows = {name: mask.flatten(1).any(1) for name, mask in ticket.masks.items()}
        assert torch.equal(rows["stem.weight"], rows["out.weight"])
        assert sum(int(rows[name].sum()) for name in ("stem.weight", "inner.weight")) == 5


def test_without_groups_a_residual_network_hardly_shrinks():
    torch.manual_seed(0)
    model = timm.create_model("resnet18", num_classes=5, zero_init_last=False).eval()
    x, left = torch.randn(2, 3, 32, 32), {}
    for groups in (None, "mean"):
        granularity = {"type": "channel", "groups": groups}
        ticket = pxframe.prune(model, [(x, None)], "random", 0.5, granularity=granularity, exclude="fc.*")
        small = pxframe.slim(model, ticket, x).model
        left[groups] = small.fc.in_features / model.fc.in_features
    assert left[None] > 0.8
    assert left["mean"] < 0.6


def test_what_cannot_be_done_is_said(model):
    with pytest.raises(pxframe.PxframeError, match="granularity 'channel': 'groups' must be one of"):
        pruned(model, groups="product")
    with pytest.raises(
        pxframe.PxframeError, match="granularity 'channel' with groups runs the model once: pass batches"
    ):
        pxframe.prune(model, [], "magnitude", 0.5, granularity={"type": "channel", "groups": "sum"})
    with pytest.raises(pxframe.PxframeError, match="no channels of the model can be removed together"):
        pruned(nn.Sequential(nn.Flatten(), nn.Linear(50, 3)), exclude=())
