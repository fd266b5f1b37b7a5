"""A scorer in a distribution of its own, installed for real with pip and found by its entry point."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent / "third_party"

PROGRAM = """
import torch, pxframe
model, x, y = torch.nn.Linear(4, 3), torch.randn(5, 4), torch.randint(0, 3, (5,))
scores = pxframe.score(model, [(x, y)], scorer="fisher")
loss = torch.nn.functional.cross_entropy(model(x), y)
expected = (torch.autograd.grad(loss, model.weight)[0] * model.weight) ** 2
assert torch.allclose(scores["weight"], expected), "not the formula"
ticket = pxframe.prune(model, [(x, y)], scorer="fisher", sparsity=0.5)
print(pxframe.scorers(), ticket.kept, ticket.meta["scorer"])
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A scratch site with the distribution in it, put on the path of a new process."""
    source = tmp_path_factory.mktemp("source") / "fisher"
    shutil.copytree(SOURCE, source)  # a build leaves files beside its source
    site = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--target", str(site), str(source)], check=True, capture_output=True, text=True)
    return {**os.environ, "PYTHONPATH": str(site)}


def test_scorer_is_found_and_gives_its_formula(installed):
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=installed, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "'fisher'" in done.stdout
    assert done.stdout.split()[-2:] == ["6", "fisher"]


def test_scorer_is_under_25_lines():
    assert len((SOURCE / "fisher.py").read_text().splitlines()) < 25


@pytest.mark.parametrize("listed", ["magnitude,snip", ""])
def test_variable_restricts_what_loads(installed, listed):
    code = "import pxframe; print(pxframe.scorers())"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**installed, "PXFRAME_PLUGINS": listed}, capture_output=True, text=True
    )
    assert done.stdout.strip() == str([name for name in listed.split(",") if name]), done.stderr
