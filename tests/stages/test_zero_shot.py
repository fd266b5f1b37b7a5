"""A task that keeps the backbone's own classifier is tested before training, with the mask and with its refit."""

import json

import pytest
import torch
from safetensors.torch import load_file

import pxframe
from pxframe.ticket.ticket import Ticket
from pxframe_plugins.snip import Snip
from pxframe_tools import cli

MEAN, STD = (0.4, 0.5, 0.6), (0.3, 0.2, 0.25)
SCALED = [tuple(255 * number for number in numbers) for numbers in (MEAN, STD)]
CONFIG = """
_root, _folder = {data!r}, "torchvision.datasets.ImageFolder"
_digits = dict(
    type="classification",
    prepare=dict(
        type="pxframe_tasks.demo.digits.write_folders", root=_root, size=8, classes=[0, 1, 2], part=(0.0, 0.5)
    ),
    data=dict(train=dict(type=_folder, root=_root + "/train"), test=dict(type=_folder, root=_root + "/test")),
    epochs=1,
    batch_size=16,
    amp="float32",
    mean={mean},
    std={std},
)
backbone = dict(type="cifar_resnet", depth=8, width=4, num_classes=3)
pretrain = dict(_digits, head=None, epochs=6)
prune = dict(scorer="magnitude", sparsity=0.7, refit="obs", samples=90, controls=["dense"])
tasks = dict(same=dict(_digits, head=None), other=_digits)
"""


@pytest.fixture
def finished(tmp_path, capsys):
    config = tmp_path / "mine.py"
    config.write_text(CONFIG.format(data=str(tmp_path / "data"), mean=SCALED[0], std=SCALED[1]))
    assert cli.main(["transfer", str(config), "--work-dir", str(tmp_path / "work")]) == 0
    rows = json.loads((tmp_path / "work" / "results.json").read_text())["rows"]
    return tmp_path, {(row["task"], row["variant"]): row for row in rows}, capsys.readouterr().out


def accuracy(model, folder):
    """Per cent of the test images, read and normalised here."""
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    transform = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)])
    right = [int(model(x[None]).argmax()) == label for x, label in ImageFolder(folder, transform)]
    return 100 * sum(right) / len(right)


def test_untrained_accuracies_are_those_of_the_rewound_backbone(finished):
    folder, rows, printed = finished
    seed = folder / "work" / "seed-0"
    ticket = Ticket.load(seed / "tickets" / "magnitude-70.00.safetensors")
    state = load_file(seed / "pretrained.safetensors")
    expected = {}
    for what in ("mask", "start"):
        model = pxframe.build_backbone(dict(type="cifar_resnet", depth=8, width=4, num_classes=3))
        model.load_state_dict(state)
        (ticket.apply if what == "mask" else ticket.rewind)(model)
        with torch.no_grad():
            expected[what] = accuracy(model.eval(), folder / "data" / "test")
    assert rows["same", "magnitude-70.00"]["zero_shot"] == pytest.approx(expected)
    assert expected["start"] > expected["mask"]
    assert set(rows["same", "dense"]["zero_shot"]) == {"mask"}  # there is nothing to refit
    assert "zero_shot" not in rows["other", "magnitude-70.00"]
    line = f"untrained {expected['mask']:.2f}, refitted {expected['start']:.2f}"
    assert sum(line in text for text in printed.splitlines() if text.startswith("same, magnitude")) == 1


def test_tickets_that_differ_in_their_refit_are_scored_once(tmp_path, monkeypatch):
    config = tmp_path / "mine.py"
    scorers = (
        '["snip", dict(type="snip", refit="obs"), dict(type="snip", refit=dict(type="bn", when="every"), rounds=2)]'
    )
    text = CONFIG.replace('scorer="magnitude"', f"scorer={scorers}").replace('refit="obs", samples', "samples")
    config.write_text(text.format(data=str(tmp_path / "data"), mean=SCALED[0], std=SCALED[1]))
    scored = []
    original = Snip.score
    monkeypatch.setattr(Snip, "score", lambda self, net, batches: scored.append(1) or original(self, net, batches))
    assert cli.main(["prune", str(config), "--work-dir", str(tmp_path / "work")]) == 0
    assert len(scored) == 1 + 2
    tickets = tmp_path / "work" / "seed-0" / "tickets"
    plain, refitted = (Ticket.load(tickets / f"snip{which}-70.00.safetensors") for which in ("", "-refit=obs"))
    assert not plain.start
    assert refitted.start
    assert refitted.meta["refit"]["type"] == "obs"
    assert all(torch.equal(refitted.masks[name], mask) for name, mask in plain.masks.items())
