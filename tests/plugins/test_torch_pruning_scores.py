"""Torch-Pruning's importances, against the library called by hand."""

import builtins
import copy
import warnings

import pytest
import torch
import torch.nn.functional as F
import torch_pruning
from residual import data, residual
from torch import nn

import pxframe
from pxframe.plugin import host
from pxframe.plugin.registry import build

IMPORTANCES = {
    "magnitude": torch_pruning.importance.GroupMagnitudeImportance,
    "taylor": torch_pruning.importance.GroupTaylorImportance,
}


def flat():
    """Each channel of the second convolution is nine inputs of the linear layer; nothing is in float64."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 1), nn.Flatten(), nn.Linear(45, 3)
    ).double()


#: By network, the layers whose channels are the groups, and what they are called here.
NETWORKS = {
    "residual": (residual, {"stem": "skip.weight", "inner": "inner.weight"}, "head.*"),
    "flat": (flat, {"0": "0.weight", "3": "3.weight"}, "5.*"),
}


@pytest.fixture
def seen():
    """The scores of every round, and the masks that it found."""

    class Watch:
        def __init__(self):
            self.scores, self.masks = [], [None]

        @pxframe.hookimpl
        def pxframe_round_done(self, scores, masks):
            self.scores.append(scores)
            self.masks.append(masks)

    watch = Watch()
    host.host().manager.register(watch)
    yield watch
    host.host().manager.unregister(watch)


def by_hand(model, layer, batches, importance, masks):
    """The library's importance of the group of a layer's channels, of a copy with the masks in place."""
    model = copy.deepcopy(model)
    for name, mask in (masks or {}).items():
        model.get_parameter(name).data.mul_(mask)
    if importance == "taylor":
        for x, y in batches:
            F.cross_entropy(model(x), y).backward()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = torch_pruning.DependencyGraph().build_dependency(model.eval(), example_inputs=batches[0][0])
    layer = model.get_submodule(layer)
    group = graph.get_pruning_group(layer, torch_pruning.prune_conv_out_channels, list(range(layer.out_channels)))
    return IMPORTANCES[importance]()(group)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("importance", IMPORTANCES)
@pytest.mark.parametrize("network", NETWORKS)
def test_scores_are_the_library_s_in_every_round(network, importance, training, seen):
    make, layers, exclude = NETWORKS[network]
    model, batches = make().train(training), data()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    scorer = {"type": "torch_pruning", "importance": importance}
    pxframe.prune(model, batches, scorer, 0.5, rounds=2, exclude=exclude, allow_collapse=True)
    for scores, masks in zip(seen.scores, seen.masks[:2], strict=True):
        assert set(scores) == set(layers.values())
        for layer, group in layers.items():
            expected = by_hand(model, layer, batches, importance, masks)
            assert expected.max() > 1.01 * expected.min()
            torch.testing.assert_close(scores[group], expected, rtol=1e-5, atol=0.0)
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert model.training == training


def test_the_best_channels_of_all_groups_stay():
    model, batches = residual().eval(), data()
    ticket = pxframe.prune(model, batches, "torch_pruning", 3 / 7, exclude="head.*")
    scores = [by_hand(model, layer, batches, "magnitude", None) for layer in ("stem", "inner")]
    kept = torch.zeros(7, dtype=torch.bool)
    kept[torch.cat(scores).topk(4).indices] = True
    rows = {name: mask.flatten(1).any(1) for name, mask in ticket.masks.items()}
    assert all(torch.equal(rows[f"{layer}.weight"], kept[:4]) for layer in ("stem", "out", "skip"))
    assert torch.equal(rows["inner.weight"], kept[4:])
    assert ticket.meta["granularity"] == {"type": "channel", "compute_aware": False, "groups": "entry"}
    assert ticket.meta["options"] == {"importance": "magnitude"}


def test_frozen_parameters_are_scored_as_any():
    model = residual().eval()
    scorer = {"type": "torch_pruning", "importance": "taylor"}
    expected = pxframe.prune(model, data(), scorer, 0.5, exclude="head.*", allow_collapse=True)
    model.requires_grad_(False)
    found = pxframe.prune(model, data(), scorer, 0.5, exclude="head.*", allow_collapse=True)
    assert all(torch.equal(mask, found.masks[name]) for name, mask in expected.masks.items())
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_only_the_taylor_expansion_reads_labels():
    unlabelled = [(x, None) for x, _ in data()]
    options = dict(sparsity=0.4, exclude="head.*")
    pxframe.prune(residual().eval(), unlabelled, "torch_pruning", **options)
    assert build("scorer", {"type": "torch_pruning", "importance": "taylor"}).needs == "labels"
    with pytest.raises(pxframe.PxframeError, match="scorer 'torch_pruning' needs labels"):
        pxframe.prune(residual().eval(), unlabelled, "torch_pruning", importance="taylor", **options)


@pytest.mark.parametrize("granularity", ["weight", "channel", {"type": "channel", "groups": "mean"}])
def test_other_granularities_are_refused(granularity):
    with pytest.raises(pxframe.PxframeError, match=r"groups of channels only: take granularity=\{'type': 'channel', "):
        pxframe.prune(residual(), data(), "torch_pruning", 0.5, granularity=granularity, exclude="head.*")


def test_what_cannot_be_done_is_said(monkeypatch):
    with pytest.raises(pxframe.PxframeError, match="torch_pruning: 'importance' must be one of 'magnitude', 'taylor'"):
        build("scorer", {"type": "torch_pruning", "importance": "hessian"})
    plain = builtins.__import__

    def missing(name, *args):
        if name == "torch_pruning":
            raise ImportError(name)
        return plain(name, *args)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(pxframe.PxframeError, match=r"needs Torch-Pruning: pip install pxframe\[slim\]"):
        pxframe.prune(residual().eval(), data(), "torch_pruning", 0.5, exclude="head.*")
