"""A scorer and a task in distributions of their own, installed for real with pip and found by their entry points."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = Path(__file__).parent / "third_party"

PROGRAM = """
import torch, pxframe
model, x, y = torch.nn.Linear(4, 3), torch.randn(5, 4), torch.randint(0, 3, (5,))
scores = pxframe.score(model, [(x, y)], scorer="squared")
loss = torch.nn.functional.cross_entropy(model(x), y)
expected = (torch.autograd.grad(loss, model.weight)[0] * model.weight) ** 2
assert torch.allclose(scores["weight"], expected), "not the formula"
ticket = pxframe.prune(model, [(x, y)], scorer="squared", sparsity=0.5)
print(pxframe.scorers(), ticket.kept, ticket.meta["scorer"])
"""

SPOTS = '''
"""Images of a white spot, and the column that it is in, from 0 to 15."""

import numpy as np
from PIL import Image


class Spots:
    def __init__(self, start, stop):
        self.start, self.stop = start, stop

    def __len__(self):
        return self.stop - self.start

    def __getitem__(self, index):
        if not 0 <= index < len(self):
            raise IndexError
        rng = np.random.default_rng(self.start + index)
        image, (row, column) = rng.integers(0, 60, (16, 16, 3), dtype=np.uint8), rng.integers(0, 16, 2)
        image[row, column] = 255
        return Image.fromarray(image), float(column)
'''

JOB = """
backbone = dict(type="cifar_resnet", depth=8, width=4)
_data = dict(train=dict(type="spots.Spots", start=0, stop=24), test=dict(type="spots.Spots", start=100, stop=108))
tasks = dict(column=dict(type="regression", data=_data, epochs=1, batch_size=8, optimizer=dict(type="Adam", lr=0.01)))
prune = dict(scorer="px", sparsity=0.5, samples=8, data=tasks["column"])
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A scratch site with the distributions in it, put on the path of a new process."""
    source = tmp_path_factory.mktemp("source") / "third_party"
    shutil.copytree(SOURCES, source)  # a build leaves files beside its source
    site = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    found = [str(source / name) for name in ("squared", "regression")]
    subprocess.run([*command, "--target", str(site), *found], check=True, capture_output=True, text=True)
    (site / "spots.py").write_text(SPOTS, encoding="utf-8")
    return {**os.environ, "PYTHONPATH": str(site)}


def test_scorer_is_found_and_gives_its_formula(installed):
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=installed, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "'squared'" in done.stdout
    assert done.stdout.split()[-2:] == ["6", "squared"]


@pytest.mark.slow
def test_a_task_transfers_a_ticket_and_its_error_is_measured(installed, tmp_path):
    """The reported error of every run is the one that its saved weights make, computed without this library's task."""
    (tmp_path / "job.py").write_text(JOB, encoding="utf-8")
    command = [sys.executable, "-m", "pxframe_tools.cli", "transfer", "job.py"]
    done = subprocess.run(command, env=installed, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "work_dirs/job/results.json").read_text())["rows"]
    assert {"dense", "random-50.00"} < {row["variant"] for row in rows}
    assert {(row["higher_is_better"], row["unit"]) for row in rows} == {(False, "px")}
    program = """
import sys, json, torch, numpy as np, pxframe
from spots import Spots
data, errors = Spots(100, 108), {}
mean, std = torch.tensor((123.675, 116.28, 103.53)), torch.tensor((58.395, 57.12, 57.375))
for variant in sys.argv[1:]:
    state = torch.load(f"work_dirs/job/seed-0/column/{variant}/model.pth", weights_only=True)
    model = pxframe.build_backbone(dict(type="cifar_resnet", depth=8, width=4, num_classes=1)).eval()
    state = {n.removeprefix("backbone.").replace("head.", "linear."): v for n, v in state.items()}
    model.load_state_dict(state)
    with torch.no_grad():
        found = [model(((torch.from_numpy(np.array(i)) - mean) / std).permute(2, 0, 1)[None]).item() for i, _ in data]
    errors[variant] = float(np.mean([abs(f - y) for f, (_, y) in zip(found, data)]))
print(json.dumps(errors))
"""
    command = [sys.executable, "-c", program, *(row["variant"] for row in rows)]
    again = subprocess.run(command, env=installed, cwd=tmp_path, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    errors = json.loads(again.stdout)
    for row in rows:
        assert row["metric"] == "MAE"
        assert row["value"] == pytest.approx(errors[row["variant"]], rel=1e-4)


@pytest.mark.parametrize("page", ["README.md", "docs/tutorial.md"])
def test_the_task_in_the_docs_is_the_tested_one(page):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)
    (shown,) = [block for block in blocks if "class Regression" in block]
    assert (SOURCES / "regression/regression.py").read_text(encoding="utf-8").endswith(shown)


@pytest.mark.parametrize("listed", ["magnitude,snip", pytest.param("", marks=pytest.mark.slow)])
def test_variable_restricts_what_loads(installed, listed):
    code = "import pxframe; print(pxframe.scorers())"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**installed, "PXFRAME_PLUGINS": listed}, capture_output=True, text=True
    )
    assert done.stdout.strip() == str([name for name in listed.split(",") if name]), done.stderr
