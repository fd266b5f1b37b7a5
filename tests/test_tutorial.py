"""The tutorial's blocks, run in their order in an empty folder, as a reader would."""

import importlib
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pxframe_tools import cli

TEXT = (Path(__file__).parent.parent / "docs" / "tutorial.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", TEXT, re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """``leafnet`` with its entry point, its weights, and photographs of three classes."""
    folder = tmp_path_factory.mktemp("tutorial")
    (code, config), toml = [b for kind, b in BLOCKS if kind == "python"][:2], dict(BLOCKS)["toml"]
    (folder / "leafnet.py").write_text(code)
    (folder / "leaves.py").write_text(config)
    # What pip makes of the pyproject.toml
    name, target = re.search(r"entry-points.pxframe\]\n(\w+) = \"(\w+)\"", toml).groups()
    info = folder / "leafnet-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: leafnet\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text(f"[pxframe]\n{name} = {target}\n")
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("test", 3)):
        for channel, leaf in enumerate(("oak", "ash", "elm")):
            (folder / "photos" / split / leaf).mkdir(parents=True)
            for i in range(count):
                image = rng.integers(0, 120, (24, 24, 3), dtype=np.uint8)
                image[..., channel] += 100
                Image.fromarray(image).save(folder / "photos" / split / leaf / f"{i}.png")
    return folder


def run(folder, arguments):
    """A command in a process of its own, where the provider is found as any plug-in is."""
    done = subprocess.run(
        [sys.executable, "-m", "pxframe_tools.cli", *arguments],
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.slow
def test_it_runs_from_end_to_end(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    leafnet = importlib.import_module("leafnet")
    torch.save(leafnet.LeafNet(8).state_dict(), "leafnet.pth")
    (transfer,), measuring, (show,) = (
        [shlex.split(line, comments=True)[1:] for line in b.splitlines()] for kind, b in BLOCKS if kind == "sh"
    )
    done = run(folder, transfer)
    rows = json.loads((folder / "work_dirs/leaves/results.json").read_text())["rows"]
    variants = ["dense", "px-50.00", "snip-50.00", "random-50.00"]
    assert [(r["seed"], r["task"], r["variant"]) for r in rows] == [
        (seed, task, variant) for seed in (0, 1) for task in ("fine_tuned", "ridge") for variant in variants
    ]
    assert done.stdout.count("±") == 8
    for command in measuring:
        run(folder, command)
    pages = [(folder / "work_dirs" / name / "report.html").read_text() for name in ("leaves", "leaves-rounds")]
    assert [[f'id="{what}"' in page for what in ("spectrum", "width", "timing")] for page in pages] == [
        [True, True, False],
        [False, False, True],
    ]
    assert cli.main(show) == 0
    assert "stage2.0.weight" in capsys.readouterr().out
    exec("\n".join(b for kind, b in BLOCKS if "torch.load" in b), {})
    state = torch.load(folder / "work_dirs/leaves/seed-0/ridge/px-50.00/model.pth", weights_only=True)
    assert (state["stage2.0.weight"] == 0).sum() > 0
