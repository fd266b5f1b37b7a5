"""Every family of timm is scored by the methods that scored it before (docs/families.md)."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent.parent / "benchmarks"))
from families import FAMILIES, refusals, scored

pytestmark = pytest.mark.filterwarnings("ignore")


def test_the_page_has_every_family():
    assert refusals().keys() == FAMILIES.keys()
    assert sum(not names for names in refusals().values()) >= 95


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_scored_as_before(family):
    row = scored(family)
    assert row.refused.keys() <= refusals()[family], row.refused
    assert row.zeros.get("px", 0) <= 1
