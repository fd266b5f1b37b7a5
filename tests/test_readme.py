"""The README's code runs, and what it names is there."""

import inspect
import json
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

import pxframe
from pxframe.plugin.registry import SCORERS
from pxframe_tools import cli

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
METHODS = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
READING = (ROOT / "docs" / "reading.md").read_text(encoding="utf-8")


def blocks(language, text=TEXT):
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_the_python_tour_runs_and_prints_what_is_shown(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code = next(b for b in blocks("python") if "ticket.guard" in b)
    exec(code, {})
    shown = TEXT.split(code)[1].split("```text\n")[1].split("```")[0]
    assert capsys.readouterr().out == shown
    assert pxframe.Ticket.load(tmp_path / "px.safetensors").sparsity == pytest.approx(0.9, abs=1e-4)


def test_models_with_several_inputs_and_detectors_are_pruned_as_shown(monkeypatch):
    made, prune = [], pxframe.prune
    monkeypatch.setattr(pxframe, "prune", lambda *args, **settings: made.append(prune(*args, **settings)))
    names = {}
    for code in blocks("python", READING):
        exec(code, names)
    assert [ticket.meta["scorer"] for ticket in made] == ["px", "snip", "snip", "px"]
    assert [round(ticket.sparsity, 2) for ticket in made] == [0.5] * 4


def test_a_new_classifier_is_scored_and_masked_as_shown():
    names = {}
    code = next(b for b in blocks("python", METHODS) if 'variant="official"' in b)
    exec(code.replace("pxframe.prune(", "ticket = pxframe.prune("), names)
    assert names["ticket"].masks["linear.weight"].shape == (5, 64)
    assert names["ticket"].meta["options"]["variant"] == "official"


def test_a_refit_follows_the_rounds_as_shown():
    names = {}
    exec(next(b for b in blocks("python", METHODS) if "pxframe.refit(" in b), names)
    assert names["refitted"].start
    assert not names["ticket"].start
    assert names["ticket"].meta["refit"]["when"] == "between"


def test_the_axes_of_pruning_give_what_they_say(monkeypatch):
    made, prune = [], pxframe.prune
    monkeypatch.setattr(pxframe, "prune", lambda *args, **settings: made.append(prune(*args, **settings)))
    exec(blocks("python", METHODS)[0], {})
    linear, erk, pattern, channels, refitted, compute, method, method_80 = made
    assert (linear.meta["schedule"], linear.meta["rounds"]) == ("linear", 5)
    assert [round(ticket.sparsity, 2) for ticket in (linear, erk, pattern, method, method_80)] == [
        *(0.9, 0.9, 0.5, 0.9, 0.8)
    ]
    assert erk.density_per_layer() == method.density_per_layer()  # the same settings, as arguments and in the dict
    assert len(set(erk.density_per_layer().values())) > 5  # erk: more for small layers
    for ticket in (erk, method_80):
        densities = ticket.density_per_layer()
        assert densities["conv1.weight"] > 2 * densities["layer3.0.conv2.weight"]
    groups = pattern.masks["layer1.0.conv1.weight"].flatten(2).movedim(1, 2).reshape(-1, 4)
    assert (groups.sum(1) == 2).all()
    for ticket in (channels, compute):
        assert "linear.weight" not in ticket.masks
        masks = [mask.flatten(1) for mask in ticket.masks.values()]
        assert all(torch.equal(mask.all(1), mask.any(1)) for mask in masks)  # whole channels
        kept = sum(int(mask.all(1).sum()) for mask in masks) / sum(len(mask) for mask in masks)
        assert kept == pytest.approx(0.7, abs=0.01)
    assert not channels.start
    assert compute.start  # what is left is rescaled
    assert {"conv1.weight", "bn1.running_var"} <= set(refitted.start)


def test_the_methods_page_lists_every_scorer_its_options_and_rounds():
    listed = METHODS.split("\n## ")[0].replace("\\|", "!").splitlines()
    rows = {cells[0].strip("` "): cells for cells in (line.strip("|").split("|") for line in listed)}
    for name in pxframe.scorers():
        scorer = SCORERS.get(name)
        assert rows[name][-1].strip() == str(scorer.rounds), name
        options = set(inspect.signature(scorer).parameters) - {"args", "kwargs"}
        assert set(re.findall(r"`(\w+)[`=]", rows[name][3])) == options, name


def test_the_scorer_is_the_tested_one():
    shown = next(b for b in blocks("python") if "class Squared" in b)
    tested = (ROOT / "tests/third_party/squared/squared.py").read_text(encoding="utf-8")
    assert tested.endswith(shown)


def test_the_head_is_a_head():
    from pxframe_tasks.segmentation.model import MODELS

    scope = {}
    exec(next(b for b in blocks("python") if "PSPHead" in b), scope)
    assert MODELS.get(scope["head"]["type"]).__name__ == "PSPHead"


def test_flags_and_files_named_are_there(capsys):
    for command in ("prune", "transfer", "report", "list", "show", "slim", "bench", "spectrum", "width", "timing"):
        assert f"pxframe {command}" in TEXT
        with pytest.raises(SystemExit) as stop:
            cli.main([command, "--help"])
        assert stop.value.code == 0
    shown = capsys.readouterr().out
    for flag in re.findall(r"--[a-z-]+", next(b for b in blocks("sh") if "pxframe transfer" in b)):
        assert flag in shown
    for path in re.findall(r"`((?:configs|tasks|pxframe|tools|plugins|docs)/[\w./]*)`", TEXT):
        assert (ROOT / path).exists(), path
    for target in re.findall(r"^make (\w+)", TEXT, re.MULTILINE):
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), target


@pytest.mark.parametrize("page", [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")], ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        file = page.parent / name if name else page
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}, target


def test_new_names_in_the_changelog_are_there():
    """The table of moved modules: the second column is what a reader types next."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").split("| old | new |\n|---|---|\n")[1].split("\n\n")[0]
    for line in text.splitlines():
        first, *others = re.findall(r"`([\w.]+)`", line.strip("|").split(" | ")[1].split(" (")[0])
        found = [first, *(f"{first.rsplit('.', name.count('.') + 1)[0]}.{name}" for name in others)]
        for module in found:
            assert find_spec(module), module


def test_every_page_of_the_guide_is_in_its_contents():
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8").split()
    for page in (ROOT / "docs").glob("*.md"):
        assert page.stem in (*index, "index"), page


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.skipif(shutil.which("make") is None, reason="no make here")
def test_the_quickstart_gives_what_it_promises(tmp_path):
    """The command behind `make quickstart`, in an empty folder."""
    recipe = subprocess.run(["make", "-n", "quickstart"], cwd=ROOT, capture_output=True, text=True).stdout
    command = next(line for line in recipe.splitlines() if "transfer.py" in line)
    assert command.endswith("tools/transfer.py configs/quickstart.py --resume")
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools/transfer.py"), str(ROOT / "configs/quickstart.py"), "--resume"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert re.match(r"checking .*quickstart.py before work begins\nthreads: \d+\n", done.stdout)
    rows = json.loads((tmp_path / "work_dirs/quickstart/results.json").read_text())["rows"]
    values = {(row["task"], row["method"]): row["value"] for row in rows}
    for task in ("digits", "scenes"):
        assert values[task, "magnitude"] >= values[task, "dense"] - 3
        assert (
            values[task, "magnitude"] >= values[task, "random"] + 20
        )  # less than half of the smallest margin of three seeds
