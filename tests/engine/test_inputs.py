"""Models with several inputs and outputs, against an enumeration of all paths (``oracle``)."""

import math
from collections import OrderedDict
from dataclasses import dataclass

import pytest
import torch
from cases import CHECKS, make_case
from torch import Tensor, nn

from pxframe.network.net import Net
from pxframe_plugins.px.scorer import PX


class TwoInputs(nn.Module):
    """A layer for each of two inputs; their sum, and what the second gives alone, are the outputs."""

    def __init__(self, output):
        super().__init__()
        self.a, self.b, self.out, self.aside = nn.Linear(3, 3), nn.Linear(2, 3), nn.Linear(3, 2), nn.Linear(3, 1)
        self.output = output

    def forward(self, left, right):
        left, right = torch.relu(self.a(left)), torch.relu(self.b(right))
        return self.output(self.out(left + right), self.aside(right))


def write_two_inputs(net, w):
    left = net.relu(net.linear(net.inputs(3), "a.weight", 3, w["a.bias"]))
    right = net.relu(net.linear(net.inputs(2), "b.weight", 3, w["b.bias"]))
    joined = net.linear(net.plus(left, right), "out.weight", 2, w["out.bias"])
    return joined + net.linear(right, "aside.weight", 1, w["aside.bias"])


@dataclass
class Found:
    one: Tensor
    other: Tensor


class Mapped(dict):
    """A class that torch's pytree does not know."""


GIVEN = {
    "tuple": lambda x: (x[:, :3], x[:, 3:]),
    "list": lambda x: [x[:, :3], x[:, 3:]],
    "dict": lambda x: {"right": x[:, 3:], "left": x[:, :3]},
    "subclass": lambda x: Mapped(left=x[:, :3], right=x[:, 3:]),
}
OUTPUTS = {
    "tuple": lambda one, other: (one, other),
    "dict": lambda one, other: {"one": one, "other": other},
    "nested": lambda one, other: OrderedDict(maps=[one, {"deeper": (other, "text", None)}]),
    "dataclass": Found,
    "subclass": lambda one, other: Mapped(one=one, other=other),
}


@pytest.fixture(params=[False, True], ids=["dense", "masked"])
def masked(request):
    return request.param


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("given", ["tuple", "list", "subclass"])
def test_paths_start_at_every_input(given, check, masked):
    torch.manual_seed(0)
    model = TwoInputs(OUTPUTS["tuple"])
    CHECKS[check](make_case(model, (5,), write_two_inputs, masked, given=GIVEN[given]))


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("output", OUTPUTS)
def test_dicts_are_given_by_name_and_outputs_may_be_anything(output, check):
    torch.manual_seed(1)
    case = make_case(TwoInputs(OUTPUTS[output]), (5,), write_two_inputs, True, given=GIVEN["dict"])
    CHECKS[check](case)


class Nested(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = nn.Linear(2, 2)
        self.out = nn.Linear(2, 2)

    def forward(self, x, parts, scale=1.0):
        return self.out(torch.relu(self.one(x) + parts["maps"][0]) + scale * parts["maps"][1][0])


@pytest.mark.parametrize("check", CHECKS)
def test_inputs_may_be_nested_and_hold_plain_values(check, masked):
    torch.manual_seed(2)

    def given(x):
        return {"x": x[:, :2], "parts": {"maps": [x[:, 2:4], (x[:, 4:],)], "name": "none"}, "scale": 3.0}

    def build(net, w):
        x, first, second = (net.inputs(2) for _ in range(3))
        hidden = net.relu(net.plus(net.linear(x, "one.weight", 2, w["one.bias"]), first))
        tripled = [net.add(edges=[(s, None, 3.0)]) for s in second]
        return net.linear(net.plus(hidden, tripled), "out.weight", 2, w["out.bias"])

    CHECKS[check](make_case(Nested(), (6,), build, masked, given=given))


class Masked(nn.Module):
    """Of two layers' results the mask keeps some; the number of the class is added, a table's row as well."""

    def __init__(self):
        super().__init__()
        self.one, self.out = nn.Linear(3, 3), nn.Linear(3, 2)
        self.words = nn.Embedding(2, 3)

    def forward(self, x, keep, number):
        x = torch.relu(self.one(x)) * keep.double() + number.double().sin()[:, None]
        return self.out(x + self.words(number))


@pytest.mark.parametrize("check", CHECKS)
def test_integers_beside_numbers_are_data(check, masked):
    """A mask is a factor, what is computed from a class is a bias, and an embedding starts paths of its own."""
    torch.manual_seed(3)

    def given(x):
        return x, x > -0.5, (x[:, 0] > 0).long()

    def build(net, w):
        x = net.inputs(3)
        hidden = net.relu(net.linear(x, "one.weight", 3, w["one.bias"]))
        kept = net.times(hidden, [net.factor([s], lambda z: float(z[0] > -0.5)) for s in x])
        rows = [net.factor([x[0]], lambda z, row=row: float((z[0] > 0) == row)) for row in range(2)]
        number = net.factor([x[0]], lambda z: math.sin(z[0] > 0))
        units = []
        for column, k in enumerate(kept):
            begin = net.add(kind="one")  # f takes one of the rows
            edges = [(k, None, 1.0), *((begin, ("words.weight", row * 3 + column), 1.0) for row in range(2))]
            units.append(net.add(edges=edges, factors=[-1, *rows], shift=number))
        return net.linear(units, "out.weight", 2, w["out.bias"])

    CHECKS[check](make_case(Masked(), (3,), build, masked, given=given))


class Words(nn.Module):
    """The sum of the words that a mask keeps; both inputs are integers."""

    def __init__(self):
        super().__init__()
        self.words, self.out = nn.Embedding(2, 3), nn.Linear(3, 2)

    def forward(self, ids, mask):
        return self.out(torch.relu(self.words(ids) * mask[..., None]).sum(1) / mask.sum(1, keepdim=True))


@pytest.mark.parametrize("check", [name for name in CHECKS if name != "norms"])
def test_paths_of_words_start_at_their_rows_and_a_mask_is_data(check, masked):
    torch.manual_seed(5)

    def given(x):
        return {"ids": (x > 0).long(), "mask": (x > -1).long() * 2}

    def build(net, w):
        tokens = net.inputs(2)
        kept = [net.factor([s], lambda z: 2.0 * (z[0] > -1)) for s in tokens]
        inverse = net.factor(tokens, lambda z: 1 / (2.0 * sum(value > -1 for value in z)))
        columns = []
        for column in range(3):
            units = []
            for token, keep in zip(tokens, kept, strict=True):
                rows = [net.factor([token], lambda z, row=row: float((z[0] > 0) == row)) for row in range(2)]
                begin = net.add(kind="one")
                edges = [(begin, ("words.weight", row * 3 + column), 1.0) for row in range(2)]
                units += net.relu(net.times([net.add(edges=edges, factors=rows)], [keep]))
            columns += net.times([net.add(edges=[(unit, None, 1.0) for unit in units])], [inverse])
        return net.linear(columns, "out.weight", 2, w["out.bias"])

    CHECKS[check](make_case(Words(), (2,), build, masked, given=given))


def test_a_tensor_given_twice_is_two_inputs():
    torch.manual_seed(4)
    model = TwoInputs(OUTPUTS["tuple"]).double()
    model.b = nn.Linear(3, 3).double()
    net = Net(model, {n: torch.ones_like(p, dtype=torch.bool) for n, p in model.named_parameters() if p.ndim > 1})
    x, y = torch.randn(2, 4, 3, dtype=torch.float64)
    net.trace((x, x))  # must not be taken for the graph of two different inputs
    both = PX().score(net, [((x, y), None)])
    fresh = PX().score(Net(model, net.masks), [((x, y), None)])
    assert all(torch.equal(both[name], fresh[name]) for name in both)
    assert not torch.allclose(both["b.weight"], PX().score(net, [((x, x), None)])["b.weight"])
