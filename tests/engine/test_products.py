"""Products of activations, gates with a bias, choices, recurrent cells: against the enumeration of all paths."""

import math

import pytest
import torch
from cases import CHECKS, make_case
from torch import nn

from pxframe.network.net import Net
from pxframe_plugins.px.scorer import PX


class Layers(nn.Module):
    """Three linear layers ``a``, ``b``, ``c`` on the input, joined by a function, and one behind it."""

    def __init__(self, join):
        super().__init__()
        self.a, self.b, self.c = (nn.Linear(2, 2) for _ in range(3))
        self.out, self.join = nn.Linear(2, 2), join

    def forward(self, x):
        return self.out(self.join(self.a(x), self.b(x), self.c(x)))


def sigmoid(z):
    return 1 / (1 + math.exp(-z))


def silu(z):
    return z * sigmoid(z)


def half_gate(z):
    """(sigmoid(z) - 1/2) / z."""
    return (sigmoid(z) - 0.5) / z


def recorded(net, carried, others, opened=1.0, gate=lambda z: z):
    return net.times(carried, [net.factor([u], lambda z: gate(z[0]), opened) for u in others])


def both(net, one, other):
    """Paths run through both sides, each with half of the other as its factor."""
    units = []
    for p, q in zip(one, other, strict=True):
        halves = [net.factor([u], lambda z: z[0] / 2, 0.5) for u in (q, p)]
        units.append(net.add(edges=[(p, None, 1.0), (q, None, 1.0)], factors=halves))
    return units


def larger(net, one, other):
    return [net.add(kind="max", edges=[(p, None, 1.0), (q, None, 1.0)]) for p, q in zip(one, other, strict=True)]


def chosen(net, one, other, read):
    """One where ``read`` is positive in f, else the other; both with all gates open."""
    units = []
    for p, q, r in zip(one, other, read, strict=True):
        picks = [net.factor([r], lambda z, sign=sign: float(sign * z[0] > 0), 1.0) for sign in (1, -1)]
        units.append(net.add(edges=[(p, None, 1.0), (q, None, 1.0)], factors=picks))
    return units


def pooled(net, units):
    return net.add(edges=[(u, None, 1 / len(units)) for u in units])


def shifted_sigmoid(net, units):
    return [
        net.add(edges=[(u, None, 1.0)], factors=[net.factor([u], lambda z: half_gate(z[0]))], bias=0.5) for u in units
    ]


def over(net, units, reads):
    return recorded(net, units, reads, gate=lambda z: 1 / z)


def size(net, units):
    """1 + sum of magnitudes, as a unit that no path leads through."""
    return [net.factor(units, lambda z: 1 + sum(map(abs, z)))] * len(units)


#: name -> (the function in torch, the same in units)
JOINED = {
    "swiglu": (lambda a, b, c: nn.functional.silu(a) * b, lambda n, a, b, c: recorded(n, b, a, gate=silu)),
    "swiglu, sides swapped": (
        lambda a, b, c: b * nn.functional.silu(a),
        lambda n, a, b, c: recorded(n, b, a, gate=silu),
    ),
    "glu": (
        lambda a, b, c: nn.functional.glu(torch.cat([a, b], 1)),
        lambda n, a, b, c: recorded(n, a, b, gate=sigmoid),
    ),
    "glu, along another dimension": (
        lambda a, b, c: nn.GLU(1)(torch.stack([a, b], 1)).squeeze(1),
        lambda n, a, b, c: recorded(n, a, b, gate=sigmoid),
    ),
    "two plain sides": (lambda a, b, c: a * b, lambda n, a, b, c: both(n, a, b)),
    "two activated sides": (
        lambda a, b, c: torch.tanh(a) * nn.functional.silu(b),
        lambda n, a, b, c: both(n, n.gated(a, lambda z: math.tanh(z) / z), n.gated(b, sigmoid)),
    ),
    "square": (lambda a, b, c: a.pow(2), lambda n, a, b, c: recorded(n, a, a)),
    "cube": (lambda a, b, c: a.pow(3), lambda n, a, b, c: recorded(n, a, a, gate=lambda z: z * z)),
    "itself": (lambda a, b, c: a * a, lambda n, a, b, c: recorded(n, a, a)),
    "broadcast side": (
        lambda a, b, c: a * b.mean(1, keepdim=True),
        lambda n, a, b, c: recorded(n, a, [pooled(n, b)] * 2),
    ),
    "activation, scaled and moved": (
        lambda a, b, c: (3 * torch.relu(a)).flip(1) * b,
        lambda n, a, b, c: recorded(n, b, a[::-1], gate=lambda z: 3 * max(z, 0.0)),
    ),
    "half of an activation": (
        lambda a, b, c: nn.functional.silu(torch.cat([a, b], 1)).chunk(2, 1)[0] * c,
        lambda n, a, b, c: recorded(n, c, a, gate=silu),
    ),
    "divided by an activation": (lambda a, b, c: a / b, lambda n, a, b, c: over(n, a, b)),
    "divided by a sum of magnitudes": (
        lambda a, b, c: a / (1 + b.abs().sum(1, keepdim=True)),
        lambda n, a, b, c: over(n, a, size(n, b)),
    ),
    "normalised by hand": (
        lambda a, b, c: a * torch.rsqrt(a.pow(2).mean(1, keepdim=True) + 1e-3),
        lambda n, a, b, c: n.times(a, [n.factor(a, lambda z: (sum(v * v for v in z) / 2 + 1e-3) ** -0.5)] * 2),
    ),
    "sigmoid added": (lambda a, b, c: a + b.sigmoid(), lambda n, a, b, c: n.plus(a, shifted_sigmoid(n, b))),
    "sigmoid hidden": (lambda a, b, c: b.sigmoid(), lambda n, a, b, c: shifted_sigmoid(n, b)),
    "sigmoid that gates": (lambda a, b, c: a * b.sigmoid(), lambda n, a, b, c: recorded(n, a, b, gate=sigmoid)),
    "addcmul": (
        lambda a, b, c: torch.addcmul(c, a, b, value=2),
        lambda n, a, b, c: n.plus(c, [n.add(edges=[(u, None, 2.0)]) for u in both(n, a, b)]),
    ),
    "maximum": (lambda a, b, c: torch.maximum(a, b), lambda n, a, b, c: larger(n, a, b)),
    "where, by data": (lambda a, b, c: torch.where(c > 0, a, b), lambda n, a, b, c: chosen(n, a, b, c)),
    "masked by a constant": (
        lambda a, b, c: a.masked_fill(torch.tensor([True, False]), 7.0),
        lambda n, a, b, c: [n.add(bias=7.0), a[1]],
    ),
    "largest of each row": (
        lambda a, b, c: torch.stack([torch.cat([a, b], 1).amax(1), torch.cat([b, c], 1).max(1).values], 1),
        lambda n, a, b, c: [n.add(kind="max", edges=[(u, None, 1.0) for u in units]) for units in (a + b, b + c)],
    ),
}


def smallest(n, a, b, c):
    def least(units):
        def pick(place):
            return lambda z: float(min(range(len(z)), key=z.__getitem__) == place)

        factors = [n.factor(units, pick(i)) for i in range(len(units))]
        return n.add(edges=[(u, None, 1.0) for u in units], factors=factors)

    everywhere = least([*a, *b, *c])
    return n.plus([least([p, q]) for p, q in zip(a, b, strict=True)], [everywhere, everywhere])


JOINED["smallest"] = (lambda a, b, c: torch.minimum(a, b) + torch.cat([a, b, c], 1).amin(1, keepdim=True), smallest)


@pytest.fixture(params=[False, True], ids=["dense", "masked"])
def masked(request):
    return request.param


def check_joined(check, join, written_out, masked):
    """A check of three layers that ``join`` joins, which ``written_out`` does in units."""

    def build(net, state):
        x = net.inputs(2)
        layers = [net.linear(x, f"{k}.weight", 2, state[f"{k}.bias"]) for k in "abc"]
        return net.linear(written_out(net, *layers), "out.weight", 2, state["out.bias"])

    CHECKS[check](make_case(Layers(join), (2,), build, masked))


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", JOINED)
def test_what_joins_activations(name, check, masked):
    torch.manual_seed(3)
    check_joined(check, *JOINED[name], masked)


def chosen_gate(net, a, b, c):
    """a times sigmoid(b) where c is positive, else times one half."""
    factors = [net.factor([r, u], lambda z: sigmoid(z[1]) if z[0] > 0 else 0.5) for r, u in zip(c, b, strict=True)]
    return [net.add(edges=[(p, None, 1.0)], factors=[f]) for p, f in zip(a, factors, strict=True)]


def by_comparison(net, a, b, c):
    factors = [net.factor([r], lambda z: float(z[0] > 0)) for r in c]
    return [net.add(edges=[(p, None, 1.0)], factors=[f]) for p, f in zip(a, factors, strict=True)]


CHOICES = {
    "a gate or a half": (lambda a, b, c: a * torch.where(c > 0, b.sigmoid(), 0.5), chosen_gate),
    "a half or a gate": (lambda a, b, c: a * torch.where(c <= 0, 0.5, b.sigmoid()), chosen_gate),
    "a gate, not": (lambda a, b, c: a * torch.where(~(c <= 0), b.sigmoid(), 0.5), chosen_gate),
    "both of two": (lambda a, b, c: a * torch.where((c > 0) & (c > -1), b.sigmoid(), 0.5), chosen_gate),
    "filled": (lambda a, b, c: a * b.sigmoid().masked_fill(c <= 0, 0.5), chosen_gate),
    "a comparison": (lambda a, b, c: a * (c > 0), by_comparison),
    "not a comparison": (lambda a, b, c: a * ~(c <= 0), by_comparison),
    "a comparison in numbers": (lambda a, b, c: a * (c > 0).to(c.dtype), by_comparison),
}


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", CHOICES)
def test_factors_that_are_chosen_by_data_are_open_in_an_open_reading(name, check, masked):
    torch.manual_seed(4)
    check_joined(check, *CHOICES[name], masked)


class LinearAttention(nn.Module):
    def __init__(self, act):
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(2, 2, bias=False) for _ in range(3))
        self.act = act

    def forward(self, x):
        q, k, v = self.act(self.q(x)), self.act(self.k(x)), self.v(x)
        return q @ (k.mT @ v)


@pytest.mark.parametrize("check", CHECKS)
def test_linear_attention_carries_its_values(check, masked):
    """relu(q) (relu(k)^T v): paths run through v. With its gates open, each product takes a mean."""
    torch.manual_seed(0)
    tokens = 3

    def build(net, state):
        x = [net.inputs(2) for _ in range(tokens)]
        q, k, v = ([net.linear(t, f"{name}.weight", 2) for t in x] for name in "qkv")
        relu = lambda z: max(z[0], 0.0)  # noqa: E731
        mixed = [
            [
                net.add(
                    edges=[(v[t][j], None, 1.0) for t in range(tokens)],
                    factors=[net.factor([k[t][i]], relu, 1 / tokens) for t in range(tokens)],
                )
                for j in range(2)
            ]
            for i in range(2)
        ]
        return [
            net.add(
                edges=[(mixed[i][j], None, 1.0) for i in range(2)],
                factors=[net.factor([q[t][i]], relu, 1 / 2) for i in range(2)],
            )
            for t in range(tokens)
            for j in range(2)
        ]

    CHECKS[check](make_case(LinearAttention(torch.relu), (tokens, 2), build, masked))


@pytest.mark.parametrize("check", CHECKS)
def test_a_matrix_product_of_plain_sides_carries_both(check, masked):
    """v k^T, the two of them plain: half of each path's value by either side."""
    torch.manual_seed(0)

    class Outer(LinearAttention):
        def forward(self, x):
            return self.k(x).mT @ self.v(x)

    def build(net, state):
        x = [net.inputs(2) for _ in range(2)]
        k, v = ([net.linear(t, f"{name}.weight", 2) for t in x] for name in "kv")
        units = []
        for i in range(2):
            for j in range(2):
                pairs = [(k[t][i], v[t][j]) for t in range(2)]
                edges = [(u, None, 1.0) for pair in pairs for u in pair]
                halves = [net.factor([u], lambda z: z[0] / 2, 0.5 / 2) for one, other in pairs for u in (other, one)]
                units.append(net.add(edges=edges, factors=halves))
        return units

    model = Outer(None)
    del model.q
    CHECKS[check](make_case(model, (2, 2), build, masked))


class KernelFromData(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 3, bias=False), nn.Linear(3, 2, bias=False)

    def forward(self, x):
        kernel = self.b(x[0]).softmax(0)[None, None]  # of the first sample: one kernel for all
        return nn.functional.conv1d(self.a(x)[:, None], kernel)[:, 0]


@pytest.mark.parametrize("check", [c for c in CHECKS if c != "output"])  # which runs two samples in one batch
def test_a_kernel_made_from_data_is_a_factor(check):
    torch.manual_seed(0)

    def build(net, state):
        x = net.inputs(3)
        a, b = net.linear(x, "a.weight", 3), net.linear(x, "b.weight", 2)
        exponents = [net.factor(b, lambda z, i=i: math.exp(z[i]) / sum(map(math.exp, z)), 0.5) for i in range(2)]
        return [net.add(edges=[(a[t + i], None, 1.0) for i in range(2)], factors=exponents) for t in range(2)]

    CHECKS[check](make_case(KernelFromData(), (3,), build, False, samples=2))


class Steps(nn.Module):
    """A recurrent layer over two tokens, or its cell called twice; the last state goes on."""

    def __init__(self, kind, is_cell):
        super().__init__()
        self.is_cell = is_cell
        if is_cell:
            self.rnn = getattr(nn, f"{kind}Cell")(2, 2)
        else:
            self.rnn = getattr(nn, kind)(2, 2, batch_first=True)

    def forward(self, x):
        if not self.is_cell:
            return self.rnn(x)[0][:, -1]
        state = self.rnn(x[:, 0])
        state = self.rnn(x[:, 1], state)
        return state[0] if isinstance(state, tuple) else state


def lstm(net, rows, x, h, c):
    i, f, g, o = rows(x, h)
    g = net.gated(g, lambda z: math.tanh(z) / z)
    kept = recorded(net, c, f, gate=sigmoid) if c else []
    new = recorded(net, g, i, gate=sigmoid)
    c = net.plus(kept, new) if c else new
    return recorded(net, net.gated(c, lambda z: math.tanh(z) / z), o, gate=sigmoid), c


@pytest.mark.parametrize("is_cell", [True, False], ids=["cell", "layer"])
@pytest.mark.parametrize("check", CHECKS)
def test_an_lstm_carries_its_cell_state(check, is_cell, masked):
    """c' = sigmoid(f) c + sigmoid(i) tanh(g), h' = sigmoid(o) tanh(c'): the three sigmoids are factors."""
    torch.manual_seed(0)
    ends = ("", "") if is_cell else ("_l0", "_l0")
    names = [f"rnn.{part}{end}" for part, end in zip(("weight_ih", "weight_hh"), ends, strict=True)]

    def build(net, state):
        tokens = [net.inputs(2) for _ in range(2)]
        biases = [state[name.replace("weight", "bias")] for name in names]

        def rows(x, h):
            found = []
            for gate in range(4):
                at = slice(2 * gate, 2 * gate + 2)
                part = net.linear(x, names[0], 2, biases[0][at], row=2 * gate)
                if h:
                    part = net.plus(part, net.linear(h, names[1], 2, biases[1][at], row=2 * gate))
                else:
                    part = net.plus_constants(part, biases[1][at])
                found.append(part)
            return found

        h, c = lstm(net, rows, tokens[0], None, None)
        return lstm(net, rows, tokens[1], h, c)[0]

    CHECKS[check](make_case(Steps("LSTM", is_cell), (2, 2), build, masked))


@pytest.mark.parametrize("is_cell", [True, False], ids=["cell", "layer"])
@pytest.mark.parametrize("check", CHECKS)
def test_a_gru_carries_its_state(check, is_cell):
    """n = tanh(W x + r (U h)), h' = (h - n) z + n: r and z are factors, and both h and n carry."""
    torch.manual_seed(0)
    end = "" if is_cell else "_l0"
    names = [f"rnn.weight_ih{end}", f"rnn.weight_hh{end}"]

    def build(net, state):
        tokens = [net.inputs(2) for _ in range(2)]
        one, other = (state[name.replace("weight", "bias")] for name in names)

        def step(x, h):
            def row(gate):
                at = slice(2 * gate, 2 * gate + 2)
                left = net.linear(x, names[0], 2, one[at], row=2 * gate)
                right = net.linear(h, names[1], 2, other[at], row=2 * gate) if h else None
                return left, right, other[at]

            def joined(gate):
                left, right, constants = row(gate)
                return net.plus(left, right) if h else net.plus_constants(left, constants)

            r, z = joined(0), joined(1)
            left, right, constants = row(2)
            if h:
                inner = net.plus(left, recorded(net, right, r, gate=sigmoid))
            else:  # r times the bias is added, so this r is an activation
                added = zip(shifted_sigmoid(net, r), constants, strict=True)
                inner = net.plus(left, [net.add(edges=[(u, None, float(c))]) for u, c in added])
            new = net.gated(inner, lambda v: math.tanh(v) / v)
            # f: (h - n) z + n. The paths through n count twice: with the factor z, and as they are.
            units = []
            for place, (n, gate) in enumerate(zip(new, z, strict=True)):
                sources = [(h[place], 1.0)] if h else []
                edges = [*((u, None, s) for u, s in sources), (n, None, -1.0), (n, None, 1.0)]
                share = net.factor([gate], lambda v: sigmoid(v[0]))
                units.append(net.add(edges=edges, factors=[share] * (len(edges) - 1) + [-1]))
            return units

        return step(tokens[1], step(tokens[0], None))

    CHECKS[check](make_case(Steps("GRU", is_cell), (2, 2), build, False))


class Normed(nn.Module):
    def __init__(self, norm):
        super().__init__()
        self.conv, self.norm, self.out = nn.Conv2d(1, 2, 1), norm, nn.Linear(2, 2)
        for parameter in norm.parameters():
            nn.init.normal_(parameter)

    def forward(self, x):
        return self.out(self.norm(self.conv(x)).mean((2, 3)))


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("check", CHECKS)
def test_instance_norm_divides_each_channel_by_a_sigma_of_its_own(check, affine, masked):
    torch.manual_seed(0)

    def build(net, state):
        x, _ = net.conv(net.inputs(4), (1, 2, 2), "conv.weight", 2, 1, bias=state["conv.bias"])
        gamma = state.get("norm.weight", torch.ones(2))
        beta = state.get("norm.bias", torch.zeros(2))
        channels = []
        for c in range(2):
            units = x[4 * c : 4 * c + 4]
            channels.append(net.normed(units, [gamma[c]] * 4, [beta[c]] * 4, 1e-5))
        means = [net.add(edges=[(u, None, 0.25) for u in units]) for units in channels]
        return net.linear(means, "out.weight", 2, state["out.bias"])

    CHECKS[check](make_case(Normed(nn.InstanceNorm2d(2, affine=affine)), (1, 2, 2), build, masked))


class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.out = nn.Embedding(4, 3), nn.Linear(3, 2)

    def forward(self, x):
        return self.out(self.words(x).mean(1))


def test_paths_of_words_begin_at_the_rows_of_a_table():
    """Two words a sample, of a table of four. The table is not to be pruned, but its weights are on the paths."""
    torch.manual_seed(0)
    model = Words().double()
    x = torch.tensor([[0, 1], [1, 1], [3, 0]])
    with torch.no_grad():
        table, weight = model.words.weight, model.out.weight
        value = (
            weight.square() * table.square().sum(0) * 2 / 4
        )  # h of each weight: two positions, each 1/4 of the square
        counts = len(x) * 2 * 3  # active paths to an output: samples, positions, units
        expected = value * counts
        expected_joint = weight.square() * sum(table[i].square() for i in x.flatten()) / 4
    for variant, wanted in (("paper", expected), ("joint", expected_joint)):
        scores = PX(variant=variant).score(Net(model, {"out.weight": torch.ones(2, 3, dtype=torch.bool)}), [(x, None)])
        assert torch.allclose(scores["out.weight"], wanted, rtol=1e-9)
