"""Where the settings of a prune come from: arguments, the scorer's config, the scorer's defaults, the built-in ones."""

from types import MappingProxyType

import pytest
import torch
from torch import nn

import pxframe
from pxframe.plugin.registry import default_scorer
from pxframe.pruning.plan import PLAN_KEYS, Plan, split_settings
from pxframe.pruning.target import KINDS
from pxframe.selection.granularity import Unstructured


class Plain(pxframe.Scorer):
    name, needs, rounds = "plain", "nothing", 4

    def score(self, net, batches):
        return {n: w.abs() for n, w in net.weights.items()}


class Opinionated(Plain):
    name = "opinionated"
    defaults = MappingProxyType(
        {
            "sparsity": 0.25,
            "rounds": 3,
            "schedule": "linear",
            "scope": "layer",
            "distribution": "erk",
            "granularity": "channel",
            "exclude": ["2.*"],
            "refit": "keep",
        }
    )


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))


def settings(ticket):
    names = {**dict.fromkeys(PLAN_KEYS), "sparsity": "sparsity_asked"}
    return {key: ticket.meta[name or key] for key, name in names.items() if key not in KINDS}


BUILT_IN = {
    "sparsity": 0.982,
    "rounds": 4,
    "schedule": "exponential",
    "scope": "global",
    "distribution": "uniform",
    "granularity": {"type": "weight"},
    "exclude": [],
    "refit": {"type": "keep"},
}


def test_without_any_word_the_built_in_ones_hold(model):
    assert settings(pxframe.prune(model, None, scorer=Plain())) == BUILT_IN


def test_a_scorer_s_defaults_go_before_the_built_in_ones(model):
    found = settings(pxframe.prune(model, None, scorer=Opinionated()))
    granularity = {"type": "channel", "compute_aware": False}
    assert found == {**Opinionated.defaults, "granularity": granularity, "refit": {"type": "keep"}}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("sparsity", 0.5),
        ("rounds", 2),
        ("schedule", "exponential"),
        ("distribution", "uniform"),
        ("exclude", ["0.weight"]),
        ("granularity", "weight"),
    ],
)
def test_an_argument_goes_before_the_config_and_the_config_before_the_defaults(model, key, value):
    own, other = Plan.of(Opinionated(), {key: value}), Plan.of(Opinionated())
    assert own != other
    assert Plan.of(Opinionated(), {}, {key: value}) == own
    assert Plan.of(Opinionated(), {key: value}, {key: Opinionated.defaults[key]}) == own
    assert Plan.of(Opinionated(), {key: None}, {key: value}) == own
    assert settings(pxframe.prune(model, None, scorer=Opinionated(), **{key: value}))[key] in (value, {"type": value})


def test_a_config_carries_settings_in_prune_and_score_alike(model):
    config = dict(type="magnitude", scope="layer", rounds=3, sparsity=0.5, granularity="weight", exclude="2.*")
    before = dict(config)
    ticket = pxframe.prune(model, None, scorer=config, rounds=2)
    assert settings(ticket) == {**BUILT_IN, "sparsity": 0.5, "rounds": 2, "scope": "layer", "exclude": ["2.*"]}
    assert set(pxframe.score(model, None, scorer=config)) == {"0.weight"} == set(ticket.masks)
    assert config == before
    assert split_settings(config) == ({"type": "magnitude"}, {k: v for k, v in config.items() if k != "type"})


def test_the_scorer_that_is_used_when_none_is_named_is_the_registered_one(model):
    assert default_scorer() in pxframe.scorers()
    ticket = pxframe.prune(model, [(torch.randn(2, 8), None)], sparsity=0.5, rounds=1)
    assert ticket.meta["scorer"] == default_scorer()


def test_unknown_defaults_of_a_scorer_are_named(model):
    class Wrong(Plain):
        defaults = MappingProxyType({"round": 3})

    with pytest.raises(
        pxframe.PxframeError, match="scorer 'plain': there is no setting 'round'; did you mean 'rounds'"
    ):
        pxframe.prune(model, None, scorer=Wrong())


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (dict(scorer=7), "scorer: give a name"),
        (dict(scorer="magnitude", exclude=7), "exclude must be a name"),
        (dict(scorer="magnitude", exclude=[7]), "exclude must be a name"),
        (dict(scorer="magnitude", rounds=True), "'rounds' must be a whole number"),
        (dict(scorer="magnitude", sparsity=True), "sparsity must be in"),
        (dict(scorer="magnitude", sparsity=float("nan")), "sparsity must be in"),
        (dict(scorer="magnitude", sparsity=1.0), "got 1.0; 0.9 removes 90 % of the weights"),
        (dict(scorer="magnitude", sparsity=90), "got 90; did you mean 0.9, which removes 90 %"),
        (dict(scorer="magnitude", sparsity=99.95), "got 99.95; did you mean 0.9995, "),
        (dict(scorer="magnitude", sparsity=[0.9, 0.98]), "one number .*; prune once for each, or run a job"),
        (
            dict(scorer=dict(type="magnitude", granularty="channel")),
            "no option 'granularty'; did you mean 'granularity'",
        ),
        (dict(scorer="px", round=10), "neither pxframe.prune nor scorer 'px' takes 'round'; did you mean 'rounds'"),
        (dict(scorer="px", varient="mean"), "nor scorer 'px' takes 'varient'; did you mean 'variant'"),
        (dict(scorer=Plain(), sparsty=0.5), "takes no argument 'sparsty'; did you mean 'sparsity'.*to its constructor"),
    ],
)
def test_bad_settings(model, arguments, text):
    with pytest.raises(pxframe.PxframeError, match=text):
        pxframe.prune(model, None, **arguments)


def test_score_says_whose_argument_it_was_given(model):
    with pytest.raises(pxframe.PxframeError, match=r"neither pxframe\.score nor scorer 'magnitude' takes 'rounds'; px"):
        pxframe.score(model, None, scorer="magnitude", rounds=3)


def test_an_instance_of_a_granularity_is_taken_as_it_is(model):
    assert Plan.of(Plain(), {"granularity": Unstructured()}).granularity == Unstructured()


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile, lambda m: torch.compile(nn.DataParallel(m))])
@pytest.mark.parametrize("scorer", ["snip", "px"])
def test_wrapped_models_give_the_tickets_of_plain_ones(model, wrap, scorer):
    batches = [(torch.randn(4, 8), torch.arange(4))]
    expected = pxframe.prune(model, batches, scorer=scorer, sparsity=0.5, rounds=2)
    ticket = pxframe.prune(wrap(model), batches, scorer=scorer, sparsity=0.5, rounds=2)
    assert list(ticket.masks) == ["0.weight", "2.weight"]
    assert all(torch.equal(ticket.masks[n], expected.masks[n]) for n in expected.masks)
    assert set(pxframe.score(wrap(model), batches, scorer=scorer)) == set(ticket.masks)
