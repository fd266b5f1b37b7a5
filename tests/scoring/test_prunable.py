"""Which parameters count as weights of convolutions and linear maps."""

import copy

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations, spectral_norm, weight_norm

import pxframe
from pxframe.base.errors import PxframeError
from pxframe.scoring.prunable import left_dense, prunable


class Bare(nn.Module):
    """Bare parameters: a projection and a kernel that are multiplied, a table and a token that are added."""

    def __init__(self):
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(4, 3, 3, 3))
        self.position = nn.Parameter(torch.randn(1, 4, 8, 8))
        self.projection = nn.Parameter(torch.randn(4, 5))
        self.head = nn.Linear(5, 2)

    def forward(self, x):
        x = F.conv2d(x, self.kernel, padding=1) + self.position
        return self.head(x.mean((2, 3)) @ self.projection)


def test_layers_of_torch_need_no_data():
    model = nn.ModuleDict(
        {
            "conv": nn.Conv1d(2, 3, 3),
            "up": nn.ConvTranspose2d(3, 4, 2),
            "bn": nn.BatchNorm1d(3),
            "attention": nn.MultiheadAttention(8, 2),
            "words": nn.Embedding(10, 8),
            "linear": nn.Linear(8, 3),
        }
    )
    assert prunable(model) == [
        "conv.weight",
        "up.weight",
        "attention.in_proj_weight",
        "attention.out_proj.weight",
        "linear.weight",
    ]


def test_bare_parameters_count_by_their_use():
    assert prunable(Bare(), torch.randn(2, 3, 8, 8)) == ["kernel", "projection", "head.weight"]


def test_bare_parameters_without_data_are_an_error_until_excluded():
    with pytest.raises(PxframeError, match=r"cannot tell without data whether kernel, position, projection"):
        prunable(Bare())
    assert prunable(Bare(), exclude=["kernel", "position", "projection"]) == ["head.weight"]


def test_exclude_takes_patterns_and_refuses_what_matches_nothing():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 2))
    assert prunable(model, exclude=["2.*"]) == ["0.weight", "1.weight"]
    with pytest.raises(PxframeError, match=r"no parameter is called '3\.weight'"):
        prunable(model, exclude=["3.weight"])
    with pytest.raises(PxframeError, match="no prunable weight"):
        prunable(model, exclude=["*"])


def test_a_shared_weight_is_listed_once():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    assert prunable(model) == ["0.weight"]


class Shared(nn.Module):
    """Two bare parameters that lie in one storage, and a slice of a third."""

    def __init__(self):
        super().__init__()
        base = torch.randn(2, 6, 6)
        self.a, self.b = nn.Parameter(base[0]), nn.Parameter(base[1])
        self.both = nn.Parameter(torch.randn(6, 12))
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        return self.head(torch.relu(torch.relu(x @ self.a) @ self.b) @ self.both[:, 6:])


def test_bare_parameters_in_one_storage_and_slices_of_one_are_found():
    assert prunable(Shared(), torch.randn(2, 6)) == ["a", "b", "both", "head.weight"]


class Standardised(nn.Conv2d):
    def forward(self, x):
        spread, mean = torch.var_mean(self.weight, (1, 2, 3), keepdim=True)
        return F.conv2d(x, (self.weight - mean) / (spread + 1e-5).sqrt(), self.bias)


class OwnKernel(nn.Module):
    """A kernel under a name of its own, normalised before it is used, with a gain."""

    def __init__(self):
        super().__init__()
        self.kernel, self.gain = nn.Parameter(torch.randn(4, 3, 3, 3)), nn.Parameter(torch.ones(4, 1, 1, 1))

    def forward(self, x):
        return F.conv2d(x, self.gain * F.normalize(self.kernel.flatten(1)).view_as(self.kernel))


class Last(nn.Module):
    """A recurrent layer, and a classifier of what it gives last."""

    def __init__(self, layer):
        super().__init__()
        self.layer, self.head = layer, nn.Linear(5, 3)

    def forward(self, x):
        return self.head(self.layer(x)[0][:, -1])


class Cells(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.head = nn.GRUCell(6, 5), nn.Linear(5, 3)

    def forward(self, x):
        state = x.new_zeros(len(x), 5)
        for step in x.unbind(1):
            state = self.cell(step, state)
        return self.head(state)


def both(norm):
    return nn.Sequential(norm(nn.Conv2d(3, 4, 3)), nn.ReLU(), nn.Flatten(), norm(nn.Linear(144, 3)))


def with_head(convolution):
    return nn.Sequential(convolution, nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))


IMAGES, SEQUENCES = torch.randn(6, 3, 8, 8), torch.randn(6, 4, 6)
GATES = ["layer.weight_ih_l0", "layer.weight_hh_l0"]
COMPUTED = {
    "weight_norm": (lambda: both(weight_norm), IMAGES, ["0.weight_v", "3.weight_v"]),
    "spectral_norm": (lambda: both(spectral_norm), IMAGES, ["0.weight_orig", "3.weight_orig"]),
    "weight_norm, parametrized": (
        lambda: both(parametrizations.weight_norm),
        IMAGES,
        ["0.parametrizations.weight.original1", "3.parametrizations.weight.original1"],
    ),
    "spectral_norm, parametrized": (
        lambda: both(parametrizations.spectral_norm),
        IMAGES,
        ["0.parametrizations.weight.original", "3.parametrizations.weight.original"],
    ),
    "standardised": (lambda: with_head(Standardised(3, 4, 3)), IMAGES, ["0.weight", "3.weight"]),
    "own kernel": (lambda: with_head(OwnKernel()), IMAGES, ["0.kernel", "3.weight"]),
    "lstm": (lambda: Last(nn.LSTM(6, 5, batch_first=True)), SEQUENCES, [*GATES, "head.weight"]),
    "lstm, projected": (
        lambda: Last(nn.LSTM(6, 7, proj_size=5, batch_first=True)),
        SEQUENCES,
        [*GATES, "layer.weight_hr_l0", "head.weight"],
    ),
    "gru": (lambda: Last(nn.GRU(6, 5, batch_first=True)), SEQUENCES, [*GATES, "head.weight"]),
    "rnn": (lambda: Last(nn.RNN(6, 5, batch_first=True)), SEQUENCES, [*GATES, "head.weight"]),
    "cell": (Cells, SEQUENCES, ["cell.weight_ih", "cell.weight_hh", "head.weight"]),
}


@pytest.mark.filterwarnings("ignore:.*weight_norm")
@pytest.mark.parametrize("kind", COMPUTED)
def test_weights_that_are_computed_before_use_are_found_by_what_is_trained(kind):
    build, x, names = COMPUTED[kind]
    model = build()
    assert prunable(model, x) == names
    assert left_dense(model, names) == []


@pytest.mark.filterwarnings("ignore:.*weight_norm")
@pytest.mark.parametrize("scorer", ["snip", "grasp", "magnitude", "random"])
@pytest.mark.parametrize("kind", COMPUTED)
def test_weights_that_are_computed_before_use_are_pruned(kind, scorer):
    build, x, names = COMPUTED[kind]
    torch.manual_seed(0)
    model = build()
    before = {n: t.clone() for n, t in model.state_dict().items()}
    batches = [(x, torch.arange(6) % 3)]
    ticket = pxframe.prune(model, batches, scorer, sparsity=0.5)
    assert list(ticket.masks) == names
    assert ticket.kept == round(0.5 * sum(model.get_parameter(n).numel() for n in names))
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())


@pytest.mark.filterwarnings("ignore:.*weight_norm")
@pytest.mark.parametrize("kind", COMPUTED)
def test_snip_of_weights_that_are_computed_before_use_is_the_derivative_by_a_mask(kind):
    """Against finite differences of the loss of a copy whose trained parameter is multiplied by 1 + or - h."""
    build, x, names = COMPUTED[kind]
    torch.manual_seed(0)
    model = build().double().eval()
    x, y = x.double(), torch.arange(6) % 3
    scores = pxframe.score(model, [(x, y)], "snip")
    state = {n: t.clone() for n, t in model.state_dict().items()}

    def loss(name, place, factor):
        values = {n: t.clone() for n, t in state.items()}
        values[name].view(-1)[place] *= factor
        model.load_state_dict(values)
        with torch.no_grad():
            return float(F.cross_entropy(model(x), y))

    step = 1e-5
    for name in names:
        for place in (0, 3):
            slope = (loss(name, place, 1 + step) - loss(name, place, 1 - step)) / (2 * step)
            assert float(scores[name].view(-1)[place]) == pytest.approx(abs(slope), rel=1e-4, abs=1e-9)


@pytest.mark.parametrize("kind", COMPUTED)
@pytest.mark.filterwarnings("ignore:.*weight_norm")
def test_methods_that_read_paths_prune_such_weights(kind):
    build, x, names = COMPUTED[kind]
    torch.manual_seed(0)
    ticket = pxframe.prune(build(), [(x, torch.arange(6) % 3)], "px", sparsity=0.5)
    assert set(names) <= ticket.masks.keys()
    assert ticket.kept == round(ticket.total / 2)
    assert all(ticket.masks[name].any() for name in names)


def test_recurrent_layers_need_no_data():
    assert prunable(Last(nn.LSTM(6, 5))) == [*GATES, "head.weight"]


class Words(nn.Module):
    """An embedding whose table is also the head's weight."""

    def __init__(self, tied, by_layer):
        super().__init__()
        self.words, self.hidden = nn.Embedding(7, 4), nn.Linear(4, 4)
        self.tied, self.by_layer = tied, by_layer
        self.position = nn.Parameter(torch.randn(3, 4))
        if by_layer:
            self.head = nn.Linear(4, 7, bias=False)
            if tied:
                self.head.weight = self.words.weight

    def forward(self, x):
        x = torch.relu(self.hidden((self.words(x) + self.position).mean(1)))
        return self.head(x) if self.by_layer else F.linear(x, self.words.weight)


def test_an_embedding_s_table_counts_where_it_is_the_weight_of_a_head():
    x = torch.randint(0, 7, (5, 3))
    assert prunable(Words(True, True), x) == ["words.weight", "hidden.weight"]
    assert prunable(Words(True, False), x) == ["words.weight", "hidden.weight"]
    assert prunable(Words(False, True), x) == ["hidden.weight", "head.weight"]


def test_what_is_left_dense_is_named_unless_it_is_excluded():
    model, x = Words(False, True), torch.randint(0, 7, (5, 3))
    names = prunable(model, x)
    assert left_dense(model, names) == ["position", "words.weight"]
    assert left_dense(model, names, exclude=["words.*"]) == ["position"]


def test_class_tokens_are_left_dense_like_position_embeddings():
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=2)
    names = prunable(model, torch.randn(1, 3, 32, 32), exclude=["head.*"])
    assert left_dense(model, names, exclude=["head.*"]) == ["cls_token", "pos_embed"]
    assert left_dense(model, names, exclude=["head.*", "*_token"]) == ["pos_embed"]


@pytest.mark.parametrize(
    ("shape", "named"),
    [
        *(((1, 1, 6), True), ((1, 6), True), ((1, 5, 6), True), ((5, 6), True), ((5, 1, 6, 1), True)),
        *(((6,), False), ((6, 1), False), ((6, 1, 1), False), ((1, 6, 1, 1), False), ((1, 1), False), ((), False)),
    ],
)
def test_tokens_and_tables_are_named_as_left_dense_and_gains_are_not(shape, named):
    model = nn.Linear(6, 6)
    model.other = nn.Parameter(torch.ones(shape))
    assert left_dense(model, ["weight"]) == (["other"] if named else [])


def test_complex_weights_are_left_dense():
    model = nn.Sequential(nn.Linear(6, 8, dtype=torch.complex64), nn.Linear(8, 3))
    assert prunable(model) == ["1.weight"]
    assert left_dense(model, ["1.weight"]) == ["0.weight"]


def test_the_watching_pass_leaves_the_model_as_it_was():
    class Changing(Bare):
        calls = 0

        def forward(self, x):
            self.calls += 1
            self.kernel.data.mul_(2)
            return super().forward(x)

    model = Changing()
    before = copy.deepcopy(model.state_dict())
    prunable(model, torch.randn(2, 3, 8, 8))
    assert model.calls == 0
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())


def test_a_model_that_fails_on_the_example_costs_one_line():
    with pytest.raises(PxframeError, match=r"the model fails on inputs of shape \[2, 5, 8, 8\]"):
        prunable(Bare(), torch.randn(3, 5, 8, 8))
