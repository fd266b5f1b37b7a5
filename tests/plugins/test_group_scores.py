"""Scores of one mask entry on all channels that go together, against differences of the loss by such an entry."""

import copy
from contextlib import ExitStack

import pytest
import torch
import torch.nn.functional as F
from residual import GATED, TIES, data, residual

import pxframe
from pxframe.network.net import Net
from pxframe.plugin.registry import build

SETTINGS = {"exclude": "head.*", "allow_collapse": True}
ENTRY = {"type": "channel", "groups": "entry"}
OPEN = {group: torch.ones(len(next(iter(at.values()))), dtype=torch.float64) for group, at in TIES.items()}


def differences(function, step=1e-6, at=OPEN):
    """Central differences of ``function(entries by group)`` in every entry."""
    found = {group: torch.zeros_like(entries) for group, entries in at.items()}
    for group, entries in at.items():
        for index in range(len(entries)):
            up, down = entries.clone(), entries.clone()
            up[index] += step
            down[index] -= step
            found[group][index] = (function({**at, group: up}) - function({**at, group: down})) / (2 * step)
    return found


def loss(model, batches):
    return sum(float(F.cross_entropy(model(x), y).detach()) for x, y in batches)


def gated_loss(model, batches, entries):
    """The loss with all channels of a group multiplied by its entries, each layer's where its gate stands."""
    with ExitStack() as stack:
        for group, layers in GATED.items():
            for module in layers.values():
                hook = model.get_submodule(module).register_forward_hook(
                    lambda *_, output_of=entries[group]: _[2] * output_of.view(-1, 1, 1)
                )
                stack.callback(hook.remove)
        return loss(model, batches)


def net_of(model, pruned=()):
    """The net of the layers that go together, without the channels ``(group, index)`` in ``pruned``."""
    masks = {}
    for group, layers in TIES.items():
        for layer, rows in layers.items():
            masks[layer] = torch.ones_like(model.get_parameter(layer), dtype=torch.bool)
            for index in (i for g, i in pruned if g == group):
                masks[layer][rows[index]] = False
    net = Net(model, masks)
    net.ties = TIES
    return net


def masked(model, net):
    model = copy.deepcopy(model)
    with torch.no_grad():
        for name, mask in net.masks.items():
            model.get_parameter(name).mul_(mask)
    return model


def agree(found, expected, rtol=1e-5):
    assert set(found) == set(expected)
    scale = max(float(e.abs().max()) for e in expected.values())
    assert scale > 1e-3
    for group, known in expected.items():
        assert torch.allclose(found[group], known, rtol=rtol, atol=1e-6 * scale), group


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("scorer", ["snip", "iter_snip", "force"])
def test_snip_s_is_the_slope_of_the_loss_by_an_entry_on_all_channels_of_a_group(scorer, training):
    model, batches = residual().train(training), data()
    expected = differences(lambda entries: gated_loss(copy.deepcopy(model), batches, entries))
    net = net_of(model)
    found = build("scorer", scorer).score_groups(net, batches)
    agree(found, {group: slope.abs() for group, slope in expected.items()})
    alone = build("scorer", scorer).score_channels(net, batches)
    summed = sum(alone[layer] for layer in TIES["stem.weight"])
    assert (found["stem.weight"] < 0.99 * summed).any()  # the layers' slopes have different signs


@pytest.mark.parametrize("scorer", ["snip", "force"])
def test_a_group_that_is_pruned_is_scored_by_what_its_return_would_change(scorer):
    model, batches = residual().eval(), data()
    net = net_of(model, [("stem.weight", 2)])

    def back(entries):
        """The loss with so much of the weights of the pruned channel."""
        moved = masked(model, net)
        with torch.no_grad():
            for layer in TIES["stem.weight"]:
                moved.get_parameter(layer)[2] = entries["stem.weight"][2] * model.get_parameter(layer)[2]
        return loss(moved, batches)

    expected = differences(lambda entries: gated_loss(masked(model, net), batches, entries))
    closed = {**OPEN, "stem.weight": torch.tensor([1.0, 1.0, 0.0, 1.0]).double()}
    expected["stem.weight"][2] = differences(back, at=closed)["stem.weight"][2]
    found = build("scorer", scorer).score_groups(net, batches)
    agree(found, {group: slope.abs() for group, slope in expected.items()})
    assert found["stem.weight"][2] > 1e-3


def trained(model, net, batches, lr, momentum):
    """The model after SGD on all batches but the last; pruned weights stay."""
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum)
    for x, y in batches[:-1]:
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        for name, mask in net.masks.items():
            model.get_parameter(name).grad.mul_(mask)
        optimizer.step()
    return model


def with_entries(model, entries):
    """A copy that starts with the parameters that the entries of the groups stand on multiplied by them."""
    model = copy.deepcopy(model)
    with torch.no_grad():
        for group, layers in GATED.items():
            for module in layers.values():
                owner = model.get_submodule(module)
                owner.weight.mul_(entries[group].view(-1, *[1] * (owner.weight.ndim - 1)))
                owner.bias.mul_(entries[group])
    return model


@pytest.mark.parametrize(("steps", "momentum", "training"), [(1, 0.0, True), (3, 0.9, False)])
def test_prospr_s_is_the_slope_of_the_loss_after_training(steps, momentum, training):
    model, batches = residual().train(training), data((4,) * (steps + 1))
    net = net_of(model, [("inner.weight", 1)] * (not training))

    def final(entries):
        return loss(trained(with_entries(masked(model, net), entries), net, batches, 0.1, momentum), batches[-1:])

    expected = differences(final, step=1e-6)
    found = build("scorer", {"type": "prospr", "steps": steps, "momentum": momentum}).score_groups(net, batches)
    if not training:
        expected["inner.weight"][1] = found["inner.weight"][1]  # pruned: scored by its return
    agree(found, {group: slope.abs() for group, slope in expected.items()}, rtol=1e-4)


def test_prospr_s_first_order_takes_the_slope_by_the_trained_weights():
    model, batches = residual().train(), data((4, 4, 4))
    net = net_of(model)
    later = trained(copy.deepcopy(model), net, batches, 0.1, 0.0)
    later.zero_grad()
    F.cross_entropy(later(batches[-1][0]), batches[-1][1]).backward()
    expected = {}
    for group, layers in GATED.items():
        slopes = []
        for module in layers.values():
            for name in (f"{module}.weight", f"{module}.bias"):
                product = model.get_parameter(name).detach() * later.get_parameter(name).grad
                slopes.append(product.reshape(len(product), -1).sum(1))
        expected[group] = sum(slopes).abs()
    agree(build("scorer", {"type": "prospr", "steps": 2, "order": "first"}).score_groups(net, batches), expected, 1e-9)


def rows(ticket, layer):
    return ticket.masks[f"{layer}.weight"].flatten(1).any(1)


@pytest.mark.parametrize("aware", [False, True])
def test_prune_keeps_the_groups_whose_entries_matter_most(aware):
    """Seven entries, three of them kept; with ``compute_aware`` relative to the multiply-accumulates of a channel."""
    model, batches = residual().eval(), data()
    slopes = differences(lambda entries: gated_loss(copy.deepcopy(model), batches, entries))
    scores = {group: slope.abs() for group, slope in slopes.items()}
    if aware:
        costs = {"stem.weight": 25 * (2 * 9 + 3 + 2), "inner.weight": 25 * 4 * 9}
        scores = {group: score / costs[group] for group, score in scores.items()}
    best = torch.cat([scores["stem.weight"], scores["inner.weight"]]).topk(3).indices
    kept = torch.zeros(7, dtype=torch.bool)
    kept[best] = True
    ticket = pxframe.prune(model, batches, "snip", 4 / 7, granularity={**ENTRY, "compute_aware": aware}, **SETTINGS)
    for layer in ("stem", "out", "skip"):
        assert torch.equal(rows(ticket, layer), kept[:4])
    assert torch.equal(rows(ticket, "inner"), kept[4:])
    assert ticket.meta["granularity"] == {"type": "channel", "compute_aware": aware, "groups": "entry"}


@pytest.mark.parametrize("scorer", ["magnitude", "px", "grasp"])
def test_without_a_formula_of_its_own_the_entry_has_the_sum(scorer):
    made = [
        pxframe.prune(
            residual().eval(), data(), scorer, 0.4, rounds=2, granularity={**ENTRY, "groups": groups}, **SETTINGS
        )
        for groups in ("entry", "sum")
    ]
    assert all(torch.equal(mask, made[1].masks[name]) for name, mask in made[0].masks.items())


def test_random_draws_one_score_an_entry():
    """So that a channel of three layers is kept as often as one of a single layer."""
    model = residual()
    net = net_of(model)
    drawn = [build("scorer", "random").score_groups(net, []) for _ in range(500)]
    for group in TIES:
        scores = torch.stack([scores[group] for scores in drawn]).flatten()
        assert scores.max() < 1
        assert abs(float(scores.mean()) - 0.5) < 5 * (1 / 12 / len(scores)) ** 0.5


@pytest.mark.parametrize("options", [{"rounds": 3}, {"rounds": 3, "scope": "layer"}, {"scorer": "force", "rounds": 4}])
@pytest.mark.parametrize("groups", ["sum", "mean", "max", "entry"])
def test_shuffled_keeps_as_many_channels_of_each_group_at_other_places(groups, options):
    options = {"scorer": "snip", "sparsity": 0.5, "granularity": {**ENTRY, "groups": groups}, **SETTINGS, **options}
    scorer = options.pop("scorer")
    plain = pxframe.prune(residual(), data(), scorer, **options)
    moved = [pxframe.prune(residual(), data(), "shuffled", of=scorer, seed=seed, **options) for seed in range(4)]
    for ticket in moved:
        for layer in ("stem", "inner"):
            assert rows(ticket, layer).sum() == rows(plain, layer).sum()
        for layer in ("out", "skip"):
            assert torch.equal(rows(ticket, "stem"), rows(ticket, layer))
    if options.get("scope") == "layer":  # some of each group are kept
        assert any(not torch.equal(rows(ticket, "stem"), rows(plain, "stem")) for ticket in moved)


def test_scores_of_entries_are_known_apart_from_those_of_channels():
    """A method is scored once for many sparsities, but not once for other entries."""
    known, tickets = {}, []
    for groups in (None, "sum", "entry"):
        granularity = {**ENTRY, "groups": groups}
        tickets.append(pxframe.prune(residual(), data(), "snip", 0.5, granularity=granularity, known=known, **SETTINGS))
        alone = pxframe.prune(residual(), data(), "snip", 0.5, granularity=granularity, **SETTINGS)
        assert all(torch.equal(mask, alone.masks[name]) for name, mask in tickets[-1].masks.items())
    assert len(known) == 3


def test_a_score_for_every_group_is_asked_for():
    class Forgetful(pxframe.Scorer):
        name = "forgetful"

        def score_groups(self, net, batches):
            return {"inner.weight": torch.ones(3, dtype=torch.float64)}

    with pytest.raises(
        pxframe.PxframeError, match=r"no score for 'skip\.weight'; give one tensor for each of net\.ties"
    ):
        pxframe.prune(residual(), data(), Forgetful(), 0.5, granularity=ENTRY, **SETTINGS)
