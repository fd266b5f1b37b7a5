"""The loop: exact sizes, nothing changed behind the user's back, errors that name scorer, round and layer."""

import random

import numpy as np
import pytest
import torch
from torch import nn

import pxframe
from pxframe.plugin import host
from pxframe.plugin.hookspecs import hookimpl

ALL = ["random", "magnitude", "snip", "synflow", "synflow_l2", "px"]


class Tiny(nn.Module):
    """Convolution, BN, dropout, residual, pooling, classifier."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.drop, self.fc = nn.Dropout(0.5), nn.Linear(8, 4)

    def forward(self, x):
        x = self.bn1(self.conv1(x)).relu_()
        x = (x + self.bn2(self.conv2(x))).relu()
        return self.fc(self.drop(x.mean((2, 3))))


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = Tiny()
    model.bn1.eval()  # a mixture of flags, as after freezing
    model.fc.bias.requires_grad_(False)
    return model


@pytest.fixture
def batches():
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(6, 3, 8, 8, generator=generator), torch.arange(6) % 4) for _ in range(2)]


def snapshot(model):
    return (
        {n: t.clone() for n, t in model.state_dict().items()},
        {n: m.training for n, m in model.named_modules()},
        {n: (p.requires_grad, id(p), p.grad is None, p._version) for n, p in model.named_parameters()},
        {n: len(m._forward_hooks) + len(m._forward_pre_hooks) for n, m in model.named_modules()},
        [n for n, _ in model.named_buffers()],
    )


def random_states():
    return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()


@pytest.mark.parametrize("scorer", ALL)
def test_model_and_random_states_are_left_bit_identical(model, batches, scorer):
    before, states = snapshot(model), random_states()
    pxframe.score(model, batches, scorer=scorer)
    pxframe.prune(model, batches, scorer=scorer, sparsity=0.5, rounds=3)
    after = snapshot(model)
    assert all(torch.equal(before[0][n], after[0][n]) for n in before[0])
    assert before[1:] == after[1:]
    assert states == random_states()


@pytest.mark.parametrize("variant", ["calibrated", "joint", "joint_calibrated", "official"])
def test_px_variants_run_and_leave_the_model_alone(model, batches, variant):
    before = snapshot(model)
    ticket = pxframe.prune(model, batches, scorer=dict(type="px", variant=variant, rounds=4), sparsity=0.5)
    assert ticket.kept == round(0.5 * ticket.total)
    assert ticket.meta["options"] == {
        "variant": variant,
        "factors": "recorded" if variant == "official" else "shared",
    }
    assert snapshot(model)[1:] == before[1:]


@pytest.mark.parametrize("scorer", ALL)
def test_same_seed_same_ticket_bit_for_bit(model, batches, scorer, tmp_path):
    files = []
    for name in ("a", "b"):
        torch.rand(7)  # the caller's random state must not matter
        pxframe.prune(model, batches, scorer=scorer, sparsity=0.7, rounds=3, seed=5).save(tmp_path / name)
        files.append((tmp_path / name).read_bytes())
    assert files[0] == files[1]


def test_targets_of_another_task_cost_one_line(model):
    batches = [(torch.rand(2, 3, 8, 8), torch.zeros(2, 8, 8, dtype=torch.long))]
    with pytest.raises(
        pxframe.PxframeError, match=r"no loss of an output \[2, \d+\] and targets \[2, 8, 8\]"
    ) as caught:
        pxframe.prune(model, batches, scorer="snip", sparsity=0.5)
    assert "\n" not in str(caught.value)


def test_another_seed_is_another_random_ticket(model):
    a, b = (pxframe.prune(model, None, scorer="random", sparsity=0.5, seed=s) for s in (0, 1))
    assert any(not torch.equal(a.masks[n], b.masks[n]) for n in a.masks)


class Watch:
    """An observer that keeps what it is told."""

    def __init__(self):
        self.rounds, self.tickets = [], []

    @hookimpl
    def pxframe_round_done(self, round, density, masks):
        self.rounds.append((round, density, {n: m.clone() for n, m in masks.items()}))

    @hookimpl
    def pxframe_ticket_made(self, ticket):
        self.tickets.append(ticket)


@pytest.fixture
def watch():
    watch = Watch()
    host.host().manager.register(watch)
    yield watch
    host.host().manager.unregister(watch)


@pytest.mark.parametrize("schedule", ["exponential", "linear"])
@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("scorer", ["px", "random", "snip"])
def test_every_round_keeps_exactly_its_count_and_masks_are_nested(model, batches, watch, scorer, scope, schedule):
    ticket = pxframe.prune(model, batches, scorer=scorer, sparsity=0.83, rounds=7, scope=scope, schedule=schedule)
    total = 3 * 8 * 9 + 8 * 8 * 9 + 8 * 4
    assert ticket.total == total
    previous = {n: torch.ones_like(m) for n, m in ticket.masks.items()}
    for number, (round_, density, masks) in enumerate(watch.rounds, start=1):
        assert round_ == number
        assert sum(int(m.sum()) for m in masks.values()) == round(density * total)
        assert all((masks[n] <= previous[n]).all() for n in masks)
        previous = masks
    assert len(watch.rounds) == 7
    assert ticket.kept == round(0.17 * total)
    assert all(torch.equal(ticket.masks[n], previous[n]) for n in previous)
    assert watch.tickets == [ticket]


class Alternating(pxframe.Scorer):
    """Scores one half of the weights high in odd rounds, the other in even ones."""

    name, needs = "alternating", "nothing"

    def __init__(self):
        self._round = 0

    def score(self, net, batches):
        self._round += 1
        return {n: ((torch.arange(w.numel()) + self._round) % 2).float().view(w.shape) for n, w in net.weights.items()}


def test_pruned_weights_return_only_where_the_scorer_says_so(model, watch):
    class Reviving(Alternating):
        revives = True

    pxframe.prune(model, None, scorer=Alternating(), sparsity=0.6, rounds=2)
    pxframe.prune(model, None, scorer=Reviving(), sparsity=0.6, rounds=2)
    masks = [m for _, _, m in watch.rounds]
    back = [sum(int((second[n] & ~first[n]).sum()) for n in first) for first, second in (masks[:2], masks[2:])]
    assert back[0] == 0
    assert back[1] > 0


def test_rounds_default_to_the_scorers_own(model, batches):
    assert pxframe.prune(model, batches, scorer="snip", sparsity=0.5).meta["rounds"] == 1
    assert pxframe.prune(model, batches, sparsity=0.1).meta["rounds"] == 100
    assert pxframe.prune(model, batches, scorer=dict(type="px", rounds=3), sparsity=0.5).meta["rounds"] == 3


def test_exclude_leaves_weights_out_of_ticket_and_count(model, batches):
    ticket = pxframe.prune(model, batches, scorer="snip", sparsity=0.5, exclude=["fc.*"])
    assert set(ticket.masks) == {"conv1.weight", "conv2.weight"}
    assert ticket.total == 3 * 8 * 9 + 8 * 8 * 9


def test_a_generator_of_batches_is_read_once_and_replayed(model, batches):
    once = pxframe.prune(model, (b for b in batches), sparsity=0.7, rounds=5)
    again = pxframe.prune(model, batches, sparsity=0.7, rounds=5)
    assert all(torch.equal(once.masks[n], again.masks[n]) for n in once.masks)


def test_a_shuffling_loader_is_drawn_from_the_seed_not_from_the_caller(model):
    data = [(torch.randn(3, 8, 8), i % 4) for i in range(12)]
    loader = torch.utils.data.DataLoader(data, batch_size=4, shuffle=True)
    states, made = random_states(), []
    for _ in range(2):
        made.append(pxframe.prune(model, loader, scorer="prospr", steps=2, sparsity=0.5))
        assert states == random_states()
        torch.rand(3)
        states = random_states()
    assert all(torch.equal(made[0].masks[n], made[1].masks[n]) for n in made[0].masks)


@pytest.mark.parametrize("scorer", ["snip", "px", "ntk_sap"])
def test_a_model_that_works_on_its_input_in_place_leaves_the_caller_s_alone(batches, scorer):
    class Centred(Tiny):
        def forward(self, x):
            x -= 0.5
            return super().forward(x)

    before = [x.clone() for x, _ in batches]
    pxframe.prune(Centred(), batches, scorer=scorer, sparsity=0.5, rounds=2)
    assert all(torch.equal(x, y) for (x, _), y in zip(batches, before, strict=True))


def test_batch_statistics_of_one_value_are_refused():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    with pytest.raises(pxframe.PxframeError, match="one value per channel"):
        pxframe.prune(model, [(torch.randn(1, 3, 3, 3), None)], variant="calibrated", sparsity=0.1)


def test_masks_are_respected_by_score(model, batches):
    masks = {n: torch.rand(p.shape) < 0.5 for n, p in model.named_parameters() if p.ndim > 1}
    scores = pxframe.score(model, batches, masks=masks)
    assert all((s[~masks[n]] == 0).all() for n, s in scores.items())


class Broken(pxframe.Scorer):
    name, needs = "broken", "nothing"

    def __init__(self, what):
        self.what = what
        self._round = 0

    def score(self, net, batches):
        self._round += 1
        scores = {n: w.abs() for n, w in net.weights.items()}
        if self._round == 2:
            scores["conv2.weight"] = {
                "nan": scores["conv2.weight"] * torch.nan,
                "shape": torch.ones(3),
                "missing": None,
            }[self.what]
            if self.what == "missing":
                del scores["conv2.weight"]
        return scores


@pytest.mark.parametrize(("what", "text"), [("nan", "576 of 576 scores"), ("shape", "shape"), ("missing", "no score")])
def test_bad_scores_name_scorer_round_and_layer(model, what, text):
    with pytest.raises(pxframe.PxframeError, match=text) as caught:
        pxframe.prune(model, None, scorer=Broken(what), sparsity=0.5, rounds=3)
    assert "scorer 'broken', round 2 of 3" in str(caught.value)
    assert "'conv2.weight'" in str(caught.value)


class FirstLayerLast(pxframe.Scorer):
    name, needs = "first_layer_last", "nothing"

    def score(self, net, batches):
        return {n: torch.full_like(w, float(n != "conv1.weight")) + w.abs() / 10 for n, w in net.weights.items()}


def test_a_network_cut_through_stops_with_the_layer(model, batches):
    with pytest.raises(pxframe.PxframeError, match="no longer depends on its input") as caught:
        pxframe.prune(model, batches, scorer=FirstLayerLast(), sparsity=0.3, rounds=2, schedule="linear")
    assert "scorer 'first_layer_last', round 2 of 2" in str(caught.value)
    assert "conv1.weight" in str(caught.value)


def test_a_cut_without_an_empty_layer_is_found():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))

    class Mismatched(pxframe.Scorer):
        name, needs = "mismatched", "nothing"

        def score(self, net, batches):
            scores = {n: torch.zeros_like(w) for n, w in net.weights.items()}
            scores["0.weight"][0] = 1.0  # unit 0 is fed ...
            scores["2.weight"][:, 1] = 1.0  # ... unit 1 is read
            return scores

    with pytest.raises(pxframe.PxframeError, match=r"no path goes through 0\.weight"):
        pxframe.prune(model, [(torch.randn(3, 4), None)], scorer=Mismatched(), sparsity=0.75)


def test_emptied_layers_are_reported_and_listed_in_the_ticket(model, batches, caplog):
    class SkipBranch(pxframe.Scorer):
        name, needs = "skip_branch", "nothing"

        def score(self, net, batches):
            return {n: w.abs() + float(n != "conv2.weight") for n, w in net.weights.items()}

    ticket = pxframe.prune(model, batches, scorer=SkipBranch(), sparsity=0.75)
    assert ticket.meta["emptied"] == ["conv2.weight"]
    assert caplog.messages == ["skip_branch: nothing is left of conv2.weight"]


def test_nearly_emptied_layers_are_reported(caplog):
    class Starving(pxframe.Scorer):
        name, needs = "starving", "nothing"

        def score(self, net, batches):
            scores = {n: w.abs() + 10 * float(n != "1.weight") for n, w in net.weights.items()}
            scores["1.weight"].view(-1)[5] = 100
            return scores

    model = nn.Sequential(nn.Linear(8, 40), nn.Linear(40, 40), nn.Linear(40, 8))
    ticket = pxframe.prune(model, None, scorer=Starving(), sparsity=0.8)
    assert ticket.nearly_emptied == {"1.weight": 1}
    assert caplog.messages == ["starving: almost nothing is left of 1.weight (1 kept)"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (dict(scorer="synflw"), "did you mean 'synflow'"),
        (dict(sparsity=1.0), r"sparsity must be in \[0, 1\), got 1.0"),
        (dict(sparsity=-0.1), r"sparsity must be in \[0, 1\)"),
        (dict(sparsity="0.5"), r"sparsity must be in \[0, 1\)"),
        (dict(rounds=0), "'rounds' must be a whole number"),
        (dict(schedule="exponentail"), "did you mean 'exponential'"),
        (dict(scope="locl"), "there is no scope 'locl'"),
        (dict(variant="papr"), "'variant' must be one of"),
        (dict(varient="paper"), "did you mean 'variant'"),
    ],
)
def test_bad_arguments(model, batches, arguments, text):
    with pytest.raises(pxframe.PxframeError, match=text):
        pxframe.prune(model, batches, **arguments)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (None, "needs inputs"),
        ([], "needs inputs"),
        ([torch.ones(2, 3, 8, 8)], "batch 0: 'batches' must give"),
        (7, "must be an iterable"),
        ([({"x": 1}, 2)], "batch 0"),
    ],
)
def test_bad_data(model, data, text):
    with pytest.raises(pxframe.PxframeError, match=text):
        pxframe.prune(model, data, sparsity=0.5)


def test_an_output_that_is_not_finite_is_an_error(model, batches):
    with torch.no_grad():
        model.fc.bias.fill_(torch.inf)
    with pytest.raises(pxframe.PxframeError, match=r"not finite .*; look for .* in its weights and in the batches"):
        pxframe.prune(model, batches, sparsity=0.5)


def test_works_whatever_gradient_mode_the_caller_is_in(model, batches):
    expected = pxframe.score(model, batches)
    with torch.no_grad():
        found = pxframe.score(model, batches)
    assert all(torch.equal(expected[n], found[n]) for n in expected)


class Reconnects(pxframe.Scorer):
    """Empties the last layer in the first round and gives it back in the second."""

    name, needs, revives, rounds = "reconnects", "inputs", True, 2

    def score(self, net, batches):
        first = all(mask.all() for mask in net.masks.values())
        return {
            n: torch.full_like(w, float((n == "2.weight") != first)) + 0.1 * w.abs() for n, w in net.weights.items()
        }


def test_a_network_that_revived_weights_connect_again_has_not_collapsed():
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    data = [(torch.rand(4, 4), torch.zeros(4, dtype=torch.long))]
    ticket = pxframe.prune(model, data, Reconnects(), 0.4, rounds=2, schedule="exponential")
    assert not ticket.emptied
    assert "collapsed" not in ticket.meta


def test_scores_are_kept_only_where_a_prune_of_its_own_would_give_the_same():
    """Not of several rounds, not of a scorer that reads the density, and not of other options, layers or seeds."""

    class Counting(pxframe.Scorer):
        name, needs = "counting", "nothing"
        calls = 0

        def __init__(self, reads=False):
            self.reads = reads

        def score(self, net, batches):
            Counting.calls += 1
            assert not self.reads or net.density
            return {name: torch.rand(w.shape, generator=net.generator) for name, w in net.weights.items()}

    model = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Linear(8, 3))

    def calls(*settings):
        Counting.calls, known = 0, {}
        for setting in settings:
            reads = setting.pop("reads", False)
            shared = pxframe.prune(model, None, Counting(reads), known=known, **setting)
            alone = pxframe.prune(model, None, Counting(reads), **setting)
            assert all(torch.equal(shared.masks[name], mask) for name, mask in alone.masks.items())
            Counting.calls -= setting.get("rounds", 1)
        return Counting.calls

    low, high = {"sparsity": 0.3}, {"sparsity": 0.6}
    assert calls({**low}, {**high}) == 1
    assert calls({**low, "rounds": 2}, {**high, "rounds": 2}) == 4
    assert calls({**low, "reads": True}, {**high, "reads": True}) == 2
    assert calls({**low}, {**high, "seed": 1}) == 2
    assert calls({**low}, {**high, "exclude": "1.*"}) == 2
    assert calls({**low}, {**high, "granularity": "channel"}) == 2
