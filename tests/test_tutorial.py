"""The tutorial's blocks, run in their order in an empty folder, as a reader would."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

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
    weights = "import torch, leafnet; torch.manual_seed(0); "
    weights += "torch.save(leafnet.LeafNet(8).state_dict(), 'leafnet.pth')"
    run(folder, "-c", weights)
    return folder


def run(folder, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_runs_from_end_to_end(folder):
    transfer, show = (b.split()[1:] for kind, b in BLOCKS if kind == "sh")
    printed = run(folder, "-m", "pxframe_tools.cli", *transfer)
    rows = json.loads((folder / "work_dirs/leaves/results.json").read_text())["rows"]
    variants = ["dense", "px-50.00", "snip-50.00", "random-50.00"]
    assert [(r["seed"], r["task"], r["variant"]) for r in rows] == [
        (seed, task, variant) for seed in (0, 1) for task in ("fine_tuned", "ridge") for variant in variants
    ]
    assert printed.count("±") == 8
    assert "px" in run(folder, "-m", "pxframe_tools.cli", *show)
    last = [b for kind, b in BLOCKS if kind == "python"][2:]
    run(folder, "-c", "\n".join(last))
    state = torch.load(folder / "work_dirs/leaves/seed-0/ridge/px-50.00/model.pth", weights_only=True)
    assert (state["stage2.0.weight"] == 0).sum() > 0
