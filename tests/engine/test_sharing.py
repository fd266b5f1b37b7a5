"""Factors that share: against the formula written out entry by entry in NumPy, and by what must add up."""

import numpy as np
import pytest
import torch
from torch import nn

import pxframe
from pxframe.network.net import Net
from pxframe.scoring.prunable import prunable

SHARED = dict(type="synflow_l2", factors="shared")


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def scores_of(model, inputs, **scorer):
    found = pxframe.score(model.double().eval(), [(inputs.double(), None)], scorer)
    return {name: score.numpy() for name, score in found.items()}


def squares(layer):
    return layer.weight.detach().double().numpy() ** 2


class Gated(nn.Module):
    """``out(function(a(x)) * b(x))``."""

    def __init__(self, function):
        super().__init__()
        self.a, self.b, self.out = nn.Linear(3, 4), nn.Linear(3, 4), nn.Linear(4, 2)
        self.function = function

    def forward(self, x):
        return self.out(self.function(self.a(x)) * self.b(x))


@pytest.mark.parametrize("function", [torch.sigmoid, nn.functional.silu, lambda z: 1 - torch.sigmoid(z)])
def test_a_gate_and_what_it_multiplies_have_one_half_each(function):
    model = Gated(function)
    a, b, out = squares(model.a), squares(model.b), squares(model.out)
    flow = out.sum(0) * b.sum(1)  # [4]: all paths through each unit; the gate is open
    scores = scores_of(model, torch.randn(1, 3), **SHARED)
    np.testing.assert_allclose(scores["out.weight"], out * b.sum(1))
    np.testing.assert_allclose(scores["b.weight"], b / b.sum(1, keepdims=True) * flow[:, None] / 2)
    np.testing.assert_allclose(scores["a.weight"], a / a.sum(1, keepdims=True) * flow[:, None] / 2)


def test_with_gates_recorded_each_sample_shares_by_its_own_paths():
    model, x = Gated(torch.sigmoid), torch.randn(3, 3)
    a, b, out = squares(model.a), squares(model.b), squares(model.out)
    expected_a, expected_b = np.zeros_like(a), np.zeros_like(b)
    for sample in x.double():
        gate = torch.sigmoid(model.double().a(sample)).detach().numpy() ** 2
        into_a, into_b = a * sample.numpy() ** 2, b * sample.numpy() ** 2
        flow = out.sum(0) * gate * into_b.sum(1)
        expected_a += into_a / into_a.sum(1, keepdims=True) * flow[:, None] / 2
        expected_b += into_b / into_b.sum(1, keepdims=True) * flow[:, None] / 2
    scores = scores_of(model, x, type="px", variant="joint", factors="shared")
    np.testing.assert_allclose(scores["a.weight"], expected_a)
    np.testing.assert_allclose(scores["b.weight"], expected_b)


class Attention(nn.Module):
    """One head on tokens of three numbers, read out at every token."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(3, 2), nn.Linear(3, 2), nn.Linear(3, 4), nn.Linear(4, 2))

    def forward(self, x):
        return self.out(nn.functional.scaled_dot_product_attention(self.q(x), self.k(x), self.v(x)))


def test_queries_and_keys_share_by_their_products():
    model, x = Attention(), torch.randn(2, 4, 3)
    q, k, v, out = (squares(layer) for layer in (model.q, model.k, model.v, model.out))
    expected_q, expected_k = np.zeros_like(q), np.zeros_like(k)
    with torch.no_grad():
        model.double()
        attend = torch.softmax(model.q(x.double()) @ model.k(x.double()).mT / 2**0.5, -1).numpy() ** 2
    for n, tokens in enumerate(x.double().numpy() ** 2):
        for i, one in enumerate(tokens):
            for j, other in enumerate(tokens):
                flow = (out.sum(0) * (v @ other)).sum() * attend[n, i, j]
                by_channel = (q @ one) * (k @ other)
                share = by_channel / by_channel.sum() * flow / 4
                expected_q += share[:, None] * q * one / (q @ one)[:, None]
                expected_k += share[:, None] * k * other / (k @ other)[:, None]
    scores = scores_of(model, x, type="px", variant="joint", factors="shared")
    np.testing.assert_allclose(scores["q.weight"], expected_q)
    np.testing.assert_allclose(scores["k.weight"], expected_k)
    recorded = scores_of(model, x, type="px", variant="joint", factors="recorded")
    np.testing.assert_allclose(scores["v.weight"], recorded["v.weight"] / 2)
    np.testing.assert_allclose(scores["out.weight"], recorded["out.weight"])


def test_a_head_whose_query_lost_a_channel_gives_nothing_to_that_channel_of_its_keys():
    model = Attention()
    with torch.no_grad():
        model.q.weight[1] = 0
    keys = scores_of(model, torch.randn(1, 4, 3), **SHARED)["k.weight"]
    assert (keys[0] > 0).all()
    assert (keys[1] == 0).all()


class Tokens(nn.Module):
    """A linear layer, and attention by a class token that only the output of the class token leaves."""

    def __init__(self):
        super().__init__()
        self.embed, self.attend = nn.Linear(3, 4), nn.MultiheadAttention(4, 2, batch_first=True)
        self.class_token, self.out = nn.Parameter(torch.randn(1, 1, 4)), nn.Linear(4, 2)

    def forward(self, x):
        x = torch.cat([self.class_token.expand(len(x), -1, -1), self.embed(x)], 1)
        return self.out(self.attend(x, x, x)[0][:, 0])


def test_a_query_that_no_path_leads_to_counts_as_a_constant():
    scores = scores_of(Tokens(), torch.randn(1, 4, 3), **SHARED)
    q, k, v = np.split(scores["attend.in_proj_weight"], 3)
    assert (q == 0).all()
    np.testing.assert_allclose(k.sum(), v.sum())
    np.testing.assert_allclose(scores["embed.weight"].sum(), scores["out.weight"].sum())


@pytest.mark.parametrize("layers", [("q",), ("k",), ("q", "k")])
def test_what_queries_or_keys_cannot_take_goes_to_the_others(layers):
    model = Attention()
    with torch.no_grad():
        for layer in layers:
            model.get_submodule(layer).weight.zero_()
    scores = scores_of(model, torch.randn(1, 4, 3), **SHARED)
    total = scores["out.weight"].sum()
    expected = {"q": total / 2, "k": total / 2, "v": total / 2} | dict.fromkeys(layers, 0)
    if len(layers) == 2:
        expected["v"] = total
    for layer, share in expected.items():
        np.testing.assert_allclose(scores[f"{layer}.weight"].sum(), share)


@pytest.mark.parametrize("shrunk", [1e-12, 1e-18, 1e-20, 1e-25])
@pytest.mark.parametrize("scorer", ["synflow", "synflow_l2", "px"])
def test_a_gate_that_is_nearly_dead_gives_finite_scores_that_add_up(shrunk, scorer):
    """In float32 the inverse of its path value may be infinite."""
    model, x = Excited().eval(), torch.randn(1, 3, 6, 6)
    with torch.no_grad():
        model.excite.fc2.weight[1] *= shrunk
    scores = pxframe.score(model, [(x, None)], scorer)
    recorded = pxframe.score(model, [(x, None)], dict(type=scorer, factors="recorded"))
    assert float(scores["conv.weight"].sum()) == pytest.approx(float(recorded["conv.weight"].sum()), rel=1e-5)
    assert all((score >= 0).all() for score in scores.values())


class Pooled(nn.Module):
    """``function(a(x), mask)``, summed over tokens."""

    def __init__(self, function):
        super().__init__()
        self.a, self.out, self.function = nn.Linear(3, 4), nn.Linear(4, 2), function

    def forward(self, x, mask):
        return self.out(self.function(self.a(x), mask).sum(1))


MASKED = {
    "multiplied": (lambda x, mask: x * mask[..., None], torch.tensor([[1.0, 0, 1, 1], [1, 1, 0, 0]])),
    "added": (
        lambda x, mask: torch.softmax(x @ x.mT + mask[:, None], -1) @ x,
        torch.tensor([[0.0, -torch.inf, 0, 0], [0, 0, -torch.inf, -torch.inf]]),
    ),
}


@pytest.mark.parametrize("how", MASKED)
@pytest.mark.parametrize("scorer", ["synflow", dict(type="px", variant="joint")], ids=["open", "gated"])
def test_a_mask_that_is_an_input_takes_no_share(how, scorer):
    function, mask = MASKED[how]
    scores = pxframe.score(Pooled(function), [((torch.randn(2, 4, 3), mask), None)], scorer)
    assert float(scores["a.weight"].sum()) == pytest.approx(float(scores["out.weight"].sum()), rel=1e-5)


class Asked(nn.Module):
    """A gate from an embedding of class numbers, and one that also reads where a maximum stands."""

    def __init__(self):
        super().__init__()
        self.a, self.gate, self.at, self.out = nn.Linear(3, 4), nn.Linear(3, 4), nn.Linear(3, 4), nn.Linear(4, 2)
        self.words, self.of_words = nn.Embedding(5, 3), nn.Linear(3, 4)

    def forward(self, x, number):
        gate = torch.sigmoid(self.gate(x) + self.at(x).max(-1, keepdim=True)[1])
        return self.out(self.a(x) * gate * torch.sigmoid(self.of_words(self.words(number))))


def test_gates_from_embeddings_and_beside_indices_share():
    scores = pxframe.score(Asked(), [((torch.randn(2, 3), torch.tensor([1, 2])), None)], SHARED)
    total = float(scores["out.weight"].sum())
    shares = {"of_words.weight": 1 / 2, "a.weight": 1 / 4, "gate.weight": 1 / 4, "at.weight": 0}
    for name, share in shares.items():
        assert float(scores[name].sum()) == pytest.approx(share * total, rel=1e-5), name


class Excited(nn.Module):
    """Squeeze-excite by torchvision's own layers behind a convolution."""

    def __init__(self):
        super().__init__()
        from torchvision.ops import SqueezeExcitation

        self.conv, self.excite, self.out = nn.Conv2d(3, 4, 3), SqueezeExcitation(4, 2), nn.Conv2d(4, 2, 1)

    def forward(self, x):
        return self.out(self.excite(self.conv(x))).mean((2, 3))


class LinearAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.qkv, self.out = nn.Linear(3, 4), nn.Linear(4, 12), nn.Linear(4, 2)

    def forward(self, x):
        q, k, v = self.qkv(self.embed(x)).chunk(3, -1)
        q, k = q.relu(), k.relu()
        return self.out(q @ (k.mT @ v) / (q @ k.mT.sum(-1, keepdim=True) + 1e-3)).mean(1)


class Mixed(nn.Module):
    """A kernel that is mixed from experts by the data."""

    def __init__(self):
        super().__init__()
        self.conv, self.route, self.out = nn.Conv2d(3, 4, 3), nn.Linear(4, 3), nn.Linear(4, 2)
        self.experts = nn.Parameter(torch.randn(3, 4 * 4 * 9))

    def forward(self, x):
        x = self.conv(x)
        kernels = self.route(x.mean((2, 3))).sigmoid() @ self.experts
        x = nn.functional.conv2d(x.flatten(0, 1)[None], kernels.view(-1, 4, 3, 3), groups=len(x))
        return self.out(x.view(-1, 4, *x.shape[2:]).mean((2, 3)))


class Normed(nn.Module):
    """Attention with queries of length one."""

    def __init__(self):
        super().__init__()
        self.embed, self.q, self.k, self.v, self.out = (nn.Linear(3, 3) for _ in range(5))

    def forward(self, x):
        x = self.embed(x)
        q, k = nn.functional.normalize(self.q(x), dim=-1), nn.functional.normalize(self.k(x), dim=-1)
        return self.out(torch.softmax(8 * q @ k.mT, -1) @ self.v(x)).mean(1)


CASES = {
    "squeeze-excite": (Excited, (2, 3, 6, 6), "conv.weight"),
    "linear attention": (LinearAttention, (2, 5, 3), "embed.weight"),
    "mixed kernels": (Mixed, (2, 3, 8, 8), "conv.weight"),
    "attention of unit queries": (Normed, (2, 5, 3), "embed.weight"),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("scorer", [SHARED, dict(type="px", variant="joint", factors="shared")], ids=["open", "gated"])
def test_shares_add_up_and_leave_no_layer_out(case, scorer):
    made, shape, first = CASES[case]
    model, inputs = made(), torch.randn(shape)
    shared = scores_of(model, inputs, **scorer)
    recorded = scores_of(model, inputs, **{**scorer, "factors": "recorded"})
    np.testing.assert_allclose(shared[first].sum(), recorded[first].sum())
    zeros = {name: ((score == 0).mean(), (recorded[name] == 0).mean()) for name, score in shared.items()}
    assert all(now <= before for now, before in zeros.values())
    assert any(now < before for now, before in zeros.values())
    if scorer is SHARED:  # with the gates of two samples, some are closed
        assert all(now == 0 for now, _ in zeros.values())


def test_what_no_rule_reads_shares_nothing():
    """The largest of three, sorted, is a gate here; sorting has no rule."""
    model = Gated(lambda z: torch.sort(z, -1)[0].sigmoid())
    shared, recorded = (
        scores_of(model, torch.ones(1, 3), type="synflow", factors=factors) for factors in ("shared", "recorded")
    )
    for name, score in recorded.items():
        np.testing.assert_array_equal(shared[name], score)


def test_the_graph_with_shares_is_another_than_without():
    model = Attention().eval()
    net = Net(model, {n: torch.ones_like(model.get_parameter(n), dtype=torch.bool) for n in prunable(model)})
    x = torch.randn(1, 4, 3)
    plain, shared = net.trace(x), net.trace(x, factors="shared")
    assert plain.paths < shared.paths
    assert net.trace(x) is plain
    assert net.trace(x, factors="shared") is shared
