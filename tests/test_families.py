"""Every family of timm, and every other model of the page, is scored by the methods that scored it before."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent.parent / "benchmarks"))
from families import FAMILIES, MODELS, on_page, scored

pytestmark = pytest.mark.filterwarnings("ignore")


def test_the_page_has_every_family_and_model():
    found = on_page()
    assert found.keys() == {*FAMILIES, *MODELS}
    refused = {name for name, (methods, _) in found.items() if methods}
    whole = {n for n in MODELS if n.startswith("torchvision detection") and not n.endswith("backbone")}
    assert refused == {"gemma4_vit", *whole}


@pytest.mark.slow
@pytest.mark.parametrize("name", [*FAMILIES, *MODELS])
def test_a_model_is_scored_as_before(name):
    row = scored(name)
    refused, zeros = on_page()[name]
    assert row.refused.keys() <= refused, row.refused
    assert row.zeros.get("px", 0) <= zeros + 0.05
