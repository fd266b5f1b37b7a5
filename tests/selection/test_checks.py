"""What a scorer, a batch or a model does wrong costs one line; what is doubtful costs a warning."""

import pytest
import torch
from torch import nn

import pxframe
from pxframe.selection.checks import check_scores, tied_at_zero


class Given(pxframe.Scorer):
    """Scores made by a function of the weights."""

    name, needs = "given", "nothing"

    def __init__(self, make):
        self._make = make

    def score(self, net, batches):
        return self._make(dict(net.weights))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))


def each(function):
    return lambda weights: {n: function(w) for n, w in weights.items()}


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda weights: None, "must be a dict of tensors by parameter name, got NoneType"),
        (lambda weights: list(weights.values()), "must be a dict of tensors by parameter name, got list"),
        (each(lambda w: None), "'0.weight' must be a tensor, got NoneType"),
        (each(lambda w: w.numpy()), "'0.weight' must be a tensor, got ndarray"),
        (each(lambda w: w.long()), "'0.weight' is torch.int64, and should be floating-point"),
        (each(lambda w: w > 0), "'0.weight' is torch.bool, and should be floating-point"),
        (each(lambda w: w.to(torch.complex64)), "'0.weight' is torch.complex64, and should be floating-point"),
        (each(lambda w: w.to(torch.float8_e4m3fn)), "'0.weight' is torch.float8_e4m3fn, and should be floating-point"),
        (each(lambda w: w.to_sparse()), r"'0.weight' is torch.sparse_coo, and must be a dense tensor: call .to_dense"),
        (each(lambda w: w.to("meta")), "'0.weight' is on meta, its weight on cpu"),
        (
            lambda weights: {"0.weight": weights["0.weight"]},
            "no score for '2.weight'; give one tensor for each of net.w",
        ),
        (each(torch.log), "scores of layer '0.weight' are not finite; look for NaN, infinity or very large numbers"),
        (each(lambda w: w[0]), r"'0.weight' has shape \(8,\), and should have \(8, 8\)"),
    ],
)
def test_scores_that_are_none(model, make, text):
    with pytest.raises(pxframe.PxframeError, match=text) as caught:
        pxframe.prune(model, None, scorer=Given(make), sparsity=0.5)
    assert str(caught.value).startswith("scorer 'given', round 1 of 1: ")
    assert "\n" not in str(caught.value)
    with pytest.raises(pxframe.PxframeError, match=text):
        pxframe.score(model, None, scorer=Given(make))


def test_an_exception_inside_a_scorer_names_scorer_round_and_type(model):
    rounds = []

    def fail(weights):
        rounds.append(1)
        if len(rounds) == 2:
            raise ZeroDivisionError("by nothing\nsecond line")
        return {n: w.abs() for n, w in weights.items()}

    with pytest.raises(pxframe.PxframeError) as caught:
        pxframe.prune(model, None, scorer=Given(fail), sparsity=0.5, rounds=3)
    assert str(caught.value) == "scorer 'given', round 2 of 3: ZeroDivisionError: by nothing"
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_ctrl_c_inside_a_scorer_stops(model):
    def stop(weights):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pxframe.prune(model, None, scorer=Given(stop), sparsity=0.5)


IMAGES = torch.rand(4, 3, 8, 8)
ODD = {
    "uint8": (IMAGES * 255).to(torch.uint8),
    "one channel": torch.rand(4, 1, 8, 8),
    "one value a channel": torch.rand(1, 3, 3, 3),
    "no sample": torch.rand(0, 3, 8, 8),
}
#: Path methods run batch norm in eval mode, which takes one value a channel.
FINE = [("px", "one value a channel"), ("synflow", "one value a channel")]


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("scorer", ["snip", "px", "synflow", "ntk_sap"])
def test_odd_inputs_cost_one_line_at_most(kind, scorer):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model.append(nn.Linear(4, 4))
    batches = [(ODD[kind], torch.zeros(len(ODD[kind]), dtype=torch.long))]
    if (scorer, kind) in FINE:
        assert pxframe.prune(model, batches, scorer=scorer, sparsity=0.1, rounds=1).kept == round(0.9 * 124)
        return
    with pytest.raises(pxframe.PxframeError, match=r"\A[^\n]+\Z"):
        pxframe.prune(model, batches, scorer=scorer, sparsity=0.1, rounds=1)


def test_a_model_that_fails_on_the_input_is_said_to():
    class Bare(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(4, 4))

        def forward(self, x):
            return x @ self.weight

    with pytest.raises(pxframe.PxframeError, match=r"on inputs .*\[2, 5\]") as caught:
        pxframe.prune(Bare(), [(torch.rand(2, 5), None)], scorer="magnitude", sparsity=0.5)
    assert "\n" not in str(caught.value)


class Constant(nn.Module):
    """A network whose output does not depend on its input."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x):
        return self.layer(torch.ones(len(x), 4))


@pytest.mark.parametrize(
    ("model", "scorer", "text"),
    [
        (Constant(), "synflow", "; let forward return one that does, or use a scorer that reads no paths"),
        (nn.ReLU(), "magnitude", "so there is nothing to prune; pass a model with weights"),
    ],
    ids=["constant", "no parameters"],
)
def test_models_that_cannot_be_pruned_are_told_with_a_way_out(model, scorer, text):
    with pytest.raises(pxframe.PxframeError, match=text):
        pxframe.prune(model, [(torch.rand(2, 3, 4, 4), None)], scorer=scorer, sparsity=0.5)


@pytest.mark.parametrize("call", [pxframe.score, pxframe.prune])
def test_labels_that_are_not_there_are_asked_for(model, call):
    batches = [(torch.randn(4, 8), None)]
    with pytest.raises(
        pxframe.PxframeError, match="scorer 'snip' needs labels, and the target of batch 0 is None"
    ) as e:
        call(model, batches, scorer="snip")
    assert "\n" not in str(e.value)
    without = set(str(e.value).partition("reads none (")[2].rstrip(")").split(", "))
    assert without >= {"magnitude", "px", "synflow"}
    assert not without & {"snip", "grasp", "imp"}
    call(model, batches, scorer="snip", loss=lambda output, _: output.square().sum())


def test_a_head_that_is_zero_from_the_start_is_named(model):
    nn.init.zeros_(model[2].weight)
    batches = [(torch.randn(4, 8), torch.arange(4))]
    with pytest.raises(pxframe.PxframeError, match=r"even before pruning: 2\.weight is zero throughout") as caught:
        pxframe.prune(model, batches, scorer="magnitude", sparsity=0.1)
    assert "lower sparsity" not in str(caught.value)
    ticket = pxframe.prune(model, batches, scorer="magnitude", sparsity=0.1, allow_collapse=True)
    assert "2.weight is zero throughout" in ticket.meta["collapsed"]


def test_a_collapse_is_an_error_unless_allowed(model):
    def first_layer_last(weights):
        return {n: w.abs() + 10 * float(n != "0.weight") for n, w in weights.items()}

    arguments = dict(scorer=Given(first_layer_last), sparsity=0.7, rounds=2, schedule="linear")
    batches = [(torch.randn(4, 8), None)]
    with pytest.raises(pxframe.PxframeError, match=r"nothing is left of 0\.weight.*allow_collapse=True"):
        pxframe.prune(model, batches, **arguments)
    ticket = pxframe.prune(model, batches, **arguments, allow_collapse=True)
    assert ticket.kept == round(0.3 * ticket.total)
    assert ticket.meta["collapsed"].startswith("scorer 'given', round 2 of 2: ")
    assert "0.weight" in ticket.meta["collapsed"]
    whole = pxframe.prune(model, batches, scorer="magnitude", sparsity=0.1, allow_collapse=True)
    assert "collapsed" not in whole.meta


def first_row_alone(weight):
    """Scores of which all but one row's are exactly 0."""
    return torch.zeros_like(weight).index_fill(0, torch.tensor([0]), 1.0)


@pytest.mark.parametrize(("sparsity", "warned"), [(0.5, True), (0.85, False), (0.0, False)])
def test_more_zero_scores_than_weights_to_prune_are_a_warning(model, caplog, sparsity, warned):
    """Of 96 scores 80 are 0: 48 of them are to go, or all of them and more, or none at all."""
    pxframe.prune(model, None, scorer=Given(each(first_row_alone)), sparsity=sparsity)
    text = "80 scores are exactly 0 (in 0.weight, 2.weight) and only 48 of them are to be pruned"
    assert any(text in message for message in caplog.messages) == warned


@pytest.mark.parametrize(
    ("negative", "zero", "positive", "keep", "pruned"),
    [
        (40, 50, 10, 60, None),  # the 40 negative ones go, and no zero
        (30, 30, 40, 50, 20),  # 50 go: the 30 negative ones, and 20 of the zeros
        (30, 30, 40, 40, None),  # 60 go: all negative ones and all zeros
        (30, 30, 40, 80, None),  # 20 go, all of them negative
        (0, 80, 20, 60, 40),
    ],
)
def test_negative_scores_go_before_zeros(negative, zero, positive, keep, pruned):
    scores = torch.cat([-torch.ones(negative), torch.zeros(zero), torch.ones(positive)])
    # Entries that were pruned before count for nothing.
    scores = {"a": scores, "b": torch.tensor([0.0, -1.0, 1.0])}
    candidates = {"a": torch.ones(100, dtype=torch.bool), "b": torch.zeros(3, dtype=torch.bool)}
    text = tied_at_zero(scores, candidates, keep)
    if pruned is None:
        assert text == ""
    else:
        assert text.startswith(f"{zero} scores are exactly 0 (in a) and only {pruned} of them are to be pruned")


def test_zeros_are_counted_among_what_is_left(model, caplog):
    """Scores of weights that are pruned already are 0 as a rule; they decide nothing."""
    pxframe.prune(model, [(torch.randn(4, 8), torch.arange(4))], scorer="iter_snip", sparsity=0.6, rounds=6)
    assert not [message for message in caplog.messages if "exactly 0" in message]


def test_layers_that_do_not_fit_a_pattern_are_said_to_stay_dense(caplog):
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))
    ticket = pxframe.prune(model, None, scorer="magnitude", granularity="2:4")
    assert ticket.meta["left_dense"] == ["0.weight"]
    assert any("stay dense" in message and "0.weight" in message for message in caplog.messages)
    assert pxframe.prune(model, None, scorer="magnitude", sparsity=0.5).meta["left_dense"] == []


class WithSideHead(nn.Module):
    """A network with a head that only training uses."""

    def __init__(self):
        super().__init__()
        self.body, self.head, self.side = nn.Linear(4, 8), nn.Linear(8, 3), nn.Linear(8, 20)

    def forward(self, x):
        x = torch.relu(self.body(x))
        return (self.head(x), self.side(x)) if self.training else self.head(x)


@pytest.mark.parametrize("scorer", ["px", "snip"])
def test_many_zeros_are_explained(scorer, caplog):
    batches = [(torch.randn(6, 4), torch.arange(6) % 3)]
    torch.manual_seed(0)
    pxframe.prune(WithSideHead().eval(), batches, scorer, sparsity=0.3)
    assert "the output in eval mode does not use side.weight (74% of the weights): exclude such layers" in caplog.text
    assert "zero throughout" not in caplog.text
    caplog.clear()
    model = WithSideHead().eval()
    nn.init.zeros_(model.head.weight)
    pxframe.prune(model, batches, scorer, sparsity=0.3, allow_collapse=True)
    assert "head.weight is zero throughout and lets nothing through" in caplog.text
    caplog.clear()
    pxframe.prune(WithSideHead().eval(), batches, scorer, sparsity=0.3, exclude=["side.*"])
    assert not caplog.text


def test_scores_whose_sum_overflows_are_finite():
    scores = {"layer": torch.full((4,), 3e38)}
    assert check_scores(scores, scores, "here")["layer"].tolist() == scores["layer"].tolist()
    with pytest.raises(pxframe.PxframeError, match="1 of 4 scores of layer 'layer' are not finite"):
        check_scores({"layer": torch.tensor([1.0, 2.0, float("inf"), 3.0])}, scores, "here")
