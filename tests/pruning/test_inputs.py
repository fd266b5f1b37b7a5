"""Models with several inputs and outputs, from the first batch to the ticket."""

from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from refusal import refused
from torch import nn

import pxframe

METHODS = [
    *(
        "magnitude",
        "lamp",
        "random",
        "snip",
        "iter_snip",
        "force",
        "grasp",
        "ntk_sap",
        "phew",
        "fisher",
        "ntk_trace",
        "cap",
    ),
    *("synflow", "synflow_l2", "logsynflow", "px"),
    dict(type="prospr", steps=1),
    dict(type="shuffled", of="px"),
    dict(type="px", factors="recorded"),
    *(dict(type="px", variant=v) for v in ("joint", "calibrated", "joint_calibrated", "official")),
]
PATHS = [
    *("synflow", "logsynflow", "px"),
    *(dict(type="px", variant=v) for v in ("joint", "calibrated")),
]


class Pair(nn.Module):
    """Two images and a class number, in a dict, make a dict."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(1, 6, 3, padding=1)
        self.norm, self.words, self.head = nn.BatchNorm2d(6), nn.Embedding(5, 6), nn.Linear(6, 4)

    def forward(self, image, depth, number=None):
        x = self.norm(torch.relu(self.left(image) + self.right(depth["map"])))
        x = x.mean((2, 3))
        return {"classes": self.head(x if number is None else x + self.words(number)), "features": [x]}


def batch(samples=4):
    x = {"image": torch.randn(samples, 3, 8, 8), "depth": {"map": torch.randn(samples, 1, 8, 8), "unit": "m"}}
    return {**x, "number": torch.arange(samples) % 5}, torch.arange(samples) % 4


def loss(output, target):
    return F.cross_entropy(output["classes"], target)


@pytest.mark.parametrize("scorer", METHODS, ids=str)
def test_every_method_prunes_a_model_with_dicts(scorer):
    torch.manual_seed(0)
    model, batches = Pair(), [batch(), batch()]
    copies = [{"image": x["image"].clone(), "map": x["depth"]["map"].clone()} for x, _ in batches]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    ticket = pxframe.prune(model, batches, scorer, sparsity=0.5, rounds=2, loss=loss, exclude=["words.*"])
    assert set(ticket.masks) == {"left.weight", "right.weight", "head.weight"}
    assert ticket.kept == ticket.total // 2
    assert ticket.meta["input"] == {"image": [3, 8, 8], "depth": {"map": [1, 8, 8], "unit": "m"}, "number": []}
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    for (x, _), copy in zip(batches, copies, strict=True):
        assert torch.equal(x["image"], copy["image"])
        assert torch.equal(x["depth"]["map"], copy["map"])


@pytest.mark.parametrize("scorer", ["px", dict(type="px", variant="joint"), "synflow", "snip", "grasp", "ntk_sap"])
def test_a_tuple_of_one_gives_what_the_tensor_alone_gives(scorer):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    x, y = torch.randn(8, 6), torch.arange(8) % 3
    alone, packed, named = (pxframe.score(model, [(given, y)], scorer) for given in (x, (x,), {"input": x}))
    for name, score in alone.items():
        assert torch.equal(score, packed[name])
        assert torch.equal(score, named[name])


def test_channels_are_refitted_and_costed():
    torch.manual_seed(0)
    granularity = dict(type="channel", compute_aware=True)
    settings = dict(granularity=granularity, refit="rescale", sparsity=0.3, exclude=["head.*", "words.*"], loss=loss)
    ticket = pxframe.prune(Pair(), [batch()], "snip", **settings)
    assert ticket.meta["macs"] == {"left.weight": 6 * 27 * 64, "right.weight": 6 * 9 * 64}


def test_a_collapse_is_seen_through_any_of_the_inputs():
    """A zero norm cuts off both images and is named; one zero layer leaves the other image."""
    torch.manual_seed(0)
    model = Pair()
    with torch.no_grad():
        model.norm.weight.zero_()
    refused(lambda: pxframe.prune(model, [batch()], "magnitude", sparsity=0.5), "norm.weight is zero throughout")
    with torch.no_grad():
        model.norm.weight.fill_(1.0)
        model.left.weight.zero_()
    assert pxframe.prune(model, [batch()], "magnitude", sparsity=0.5).kept == 120


class Sum(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x, y):
        return self.layer(x) + y


X, Y = torch.randn(4, 3), torch.arange(4) % 3
BAD = {
    "no tensor": (([1, 2], "text"), ["batch 0", "model(**inputs)", "tuple"]),
    "nothing": ((), ["batch 0", "got tuple for the input"]),
    "array": ((X.numpy()), ["batch 0", "got ndarray for the input"]),
    "empty": ((X[:0], X[:0]), ["batch 0 has no sample", "[0, 3]"]),
    "keys": ({1: X, 2: X}, ["batch 0", "keys must be strings"]),
    "name": ({"x": X, "z": X}, ["unexpected keyword argument 'z'"]),
    "number": ((X,), ["missing 1 required positional argument: 'y'"]),
    "batch": ((X, X[:1]), ["first dimension", "[4, 3]", "[1, 3]"]),
    "scalar": ((X, torch.tensor(2.0)), ["first dimension", "[4, 3]", "[] and", "as a plain number"]),
}


@pytest.mark.parametrize("kind", BAD)
def test_inputs_that_cannot_be_used_cost_one_line(kind):
    inputs, parts = BAD[kind]
    refused(lambda: pxframe.prune(Sum(), [(inputs, Y)], "px", sparsity=0.3, rounds=1), *parts)


def test_an_argument_that_all_samples_share_is_no_matter_to_methods_that_divide_no_batch():
    assert pxframe.prune(Sum(), [((X, X[:1]), Y)], "snip", sparsity=0.3).kept == 6
    assert pxframe.prune(Sum(), [((X, 2.0), Y)], "px", sparsity=0.3, rounds=1).kept == 6


class Cast(nn.Module):
    """Computes in a dtype of its own, whatever it is given."""

    def __init__(self, dtype, last=None):
        super().__init__()
        self.a, self.b = nn.Linear(3, 4).to(dtype), nn.Linear(4, 3).to(last or dtype)

    def forward(self, x, shift=0):
        hidden = torch.relu(self.a((x + shift).to(self.a.weight.dtype)))
        return self.b(hidden.to(self.b.weight.dtype))


HALF, SINGLE, DOUBLE = torch.float16, torch.float32, torch.float64
DTYPES = {
    "doubles for singles": (SINGLE, None, (DOUBLE,)),
    "doubles for halves": (HALF, None, (DOUBLE,)),
    "singles for doubles": (DOUBLE, None, (SINGLE,)),
    "a double beside halves": (HALF, None, (HALF, DOUBLE)),
    "a layer of doubles": (SINGLE, DOUBLE, (SINGLE,)),
}


@pytest.mark.parametrize("scorer", PATHS, ids=str)
@pytest.mark.parametrize("kind", DTYPES)
def test_the_parameters_say_how_exact_paths_are(kind, scorer):
    torch.manual_seed(0)
    first, last, given = DTYPES[kind]
    model, x = Cast(first, last), [torch.rand(4, 3).to(dtype) for dtype in given]
    target = torch.arange(4) % 3
    exact = pxframe.score(deepcopy(model).double(), [([t.double() for t in x], target)], scorer)
    for name, score in pxframe.score(model, [(x, target)], scorer).items():
        assert torch.allclose(score.double(), exact[name], rtol=0.02)
        if scorer != "logsynflow":  # which computes in float64
            assert score.dtype is (DOUBLE if DOUBLE in (first, last) else SINGLE)


def test_channels_of_a_model_that_is_given_another_dtype_are_refitted():
    settings = dict(granularity="channel", refit="rescale", sparsity=0.2)
    ticket = pxframe.prune(Cast(SINGLE), [(torch.rand(4, 3).double(), None)], "magnitude", **settings)
    assert {start.dtype for start in ticket.start.values()} == {SINGLE}
