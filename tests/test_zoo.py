"""Every method on every model: a finite ticket of exactly the size asked for."""

import re
import time
from pathlib import Path

import pytest
import torch
import zoo

import pxframe

DOCS = Path(__file__).parent.parent / "docs" / "methods.md"
BEGIN, END = "<!-- written by tests/test_zoo.py --write-docs -->\n", "<!-- end -->\n"
#: Models with no kind of layer that another has not; they are run when the table is written.
LEFT_OUT = ("resnet18", "resnet50, zero_init_last", "efficientnet_b0")
#: The models that take longest, even when small; other tests have their layers in networks of their own.
SLOW = ("clip RN50", "clip ViT-B-32", "DeepLabV3+", "resnet50", "convnext_atto")


@pytest.fixture(scope="module")
def outcomes(request):
    """What came of each method on each model; becomes the table in the docs when asked for."""
    found = {}
    yield found
    if request.config.getoption("--write-docs"):
        text = DOCS.read_text(encoding="utf-8")
        before, after = text.split(BEGIN)[0], text.split(END)[1]
        DOCS.write_text(before + BEGIN + table(found) + END + after, encoding="utf-8")


def table(found):
    lines = ["| method | " + " | ".join(zoo.MODELS) + " |", "|---|" + "---|" * len(zoo.MODELS)]
    lines += [f"| {m} | " + " | ".join(found[m, n] for n in zoo.MODELS) + " |" for m in zoo.METHODS]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in zoo.MODELS])
@pytest.mark.filterwarnings("ignore")
def test_every_method_runs(name, request, outcomes):
    full = request.config.getoption("--write-docs")
    if name in LEFT_OUT and not full:
        pytest.skip("its kinds of layers are in other models and tests; run with --write-docs")
    model = zoo.build(name, full)
    before = {n: t.clone() for n, t in model.state_dict().items()}
    for method in zoo.METHODS:
        start = time.perf_counter()
        ticket = zoo.prune(method, name, model, full)
        assert ticket.kept == round((1 - zoo.METHODS[method].get("sparsity", 0.5)) * ticket.total), method
        assert all(t.isfinite().all() for t in ticket.start.values() if t.is_floating_point()), method
        outcomes[method, name] = f"{time.perf_counter() - start:.1f} s, {len(ticket.emptied)}"
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    assert all(module.training for module in model.modules())


def test_the_table_knows_every_scorer_there_is():
    named = {options.get("type", method) for method, options in zoo.METHODS.items()}
    # Of the dense network there is nothing to tabulate; SparseGPT takes minutes where layers have thousands of inputs;
    # Torch-Pruning scores channels only.
    assert named | {"dense", "sparsegpt", "torch_pruning"} == set(pxframe.scorers())


def test_the_table_in_the_docs_is_of_these_methods_and_models():
    lines = DOCS.read_text(encoding="utf-8").split(BEGIN)[1].split(END)[0].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0] == ["method", *zoo.MODELS]
    assert [row[0] for row in cells[2:]] == list(zoo.METHODS)
    for method, *outcomes in cells[2:]:
        assert all(re.fullmatch(r"\d+\.\d s, \d+", outcome) for outcome in outcomes), method
        assert len(outcomes) == len(zoo.MODELS)
