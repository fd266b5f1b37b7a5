"""Numbers that users give are checked in one way everywhere; True and False are no numbers."""

import math

import pytest

import pxframe
from pxframe.base.errors import PxframeError
from pxframe.base.options import one_of, positive, share, whole_number
from pxframe.plugin.registry import build
from pxframe.pruning.plan import Plan, check_sparsity


@pytest.mark.parametrize(
    ("check", "value", "text"),
    [
        (whole_number, 0, "here: 'n' must be a whole number of at least 1, got 0"),
        (whole_number, 1.0, "here: 'n' must be a whole number of at least 1, got 1.0"),
        (positive, 0, "here: 'n' must be a finite number above 0, got 0"),
        (positive, math.inf, "here: 'n' must be a finite number above 0, got inf"),
        (positive, math.nan, "here: 'n' must be a finite number above 0, got nan"),
        (share, 1, "here: 'n' must be a number in [0, 1), got 1"),
        (share, "half", "here: 'n' must be a number in [0, 1), got 'half'"),
    ],
)
def test_numbers_out_of_their_range_are_refused(check, value, text):
    with pytest.raises(PxframeError) as caught:
        check("here", "n", value)
    assert str(caught.value) == text


def test_values_that_are_allowed_are_returned():
    assert (whole_number("", "n", 0, least=0), positive("", "n", 1e-9), share("", "n", 0)) == (0, 1e-9, 0)
    assert one_of("", "n", "b", ("a", "b")) == "b"


def scorer(name, **options):
    return lambda: build("scorer", {"type": name, **options})


def detection(**options):
    data = {split: {"type": "VOCBoxes"} for split in ("train", "test")}
    return lambda: build("task", {"type": "detection", "data": data, **options})


@pytest.mark.parametrize(
    ("option", "make"),
    [
        *((check.__name__, lambda check=check: check("", check.__name__, True)) for check in (whole_number, positive)),
        ("share", lambda: share("", "share", False)),
        ("sparsity", lambda: check_sparsity(False)),
        ("rounds", lambda: Plan.of(pxframe.Scorer(), {"rounds": True, "sparsity": 0.5})),
        ("step", scorer("ltr", step=True)),
        ("steps", scorer("prospr", steps=True)),
        ("lr", scorer("prospr", lr=True)),
        ("momentum", scorer("prospr", momentum=False)),
        ("temperature", scorer("grasp", temperature=True)),
        ("eps", scorer("ntk_sap", eps=True)),
        ("draws", scorer("ntk_sap", draws=True)),
        ("width", lambda: build("backbone", {"type": "vgg16_bn"}).build(width=True)),
        ("min_size", detection(min_size=True)),
        ("max_size", detection(min_size=1, max_size=True)),
    ],
)
def test_booleans_are_no_numbers(option, make):
    with pytest.raises(PxframeError, match=rf"\b{option}\b.* got (True|False)"):
        make()
