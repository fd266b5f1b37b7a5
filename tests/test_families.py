"""Every family of timm, and every other model of the page, is scored by the methods that scored it before."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent.parent / "benchmarks"))
from families import FAMILIES, MODELS, refusals, scored

pytestmark = pytest.mark.filterwarnings("ignore")


def test_the_page_has_every_family_and_model():
    found = refusals()
    assert found.keys() == {*FAMILIES, *MODELS}
    assert sum(not found[name] for name in FAMILIES) >= 95


@pytest.mark.slow
@pytest.mark.parametrize("name", [*FAMILIES, *MODELS])
def test_a_model_is_scored_as_before(name):
    row = scored(name)
    assert row.refused.keys() <= refusals()[name], row.refused
    assert row.zeros.get("px", 0) <= 1
