"""What is written can be loaded with torch and safetensors alone."""

import json
import re
from pathlib import Path

import pytest
import timm
import torch
from torch import nn

import pxframe
from pxframe.slimming.files import save_slim
from pxframe.ticket.file import fingerprint
from pxframe_tools import cli

GUIDE = (Path(__file__).parents[2] / "docs" / "slim.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)


def dense():
    torch.manual_seed(0)
    return timm.create_model("test_resnet", num_classes=5).eval()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder, model, x = tmp_path_factory.mktemp("slim") / "here", dense(), torch.randn(2, 3, 32, 32)
    ticket = pxframe.prune(model, [(x, None)], "random", 0.5, granularity="channel", exclude="fc.*")
    found = pxframe.slim(model, ticket, x)
    files = save_slim(folder, found, model, x, {"backbone": "test_resnet"})
    assert [file.name for file in files] == ["weights.safetensors", "slim.json", "program.pt2"]
    return folder, found.model


def load_plainly(folder, model):
    """The function that docs/slim.md shows."""
    scope = {}
    exec(next(block for block in BLOCKS if "def load(" in block), scope)
    return scope["load"](folder, model)


def test_the_guide_s_example_runs(capsys):
    scope = {}
    for block in BLOCKS:
        if "def load(" not in block and "export_onnx" not in block:  # test_onnx.py runs the latter
            exec(block, scope)
    assert "layer1.0.conv1" in capsys.readouterr().out


@pytest.mark.parametrize("load", [pxframe.load_slim, load_plainly])
def test_the_same_outputs(saved, load):
    folder, small = saved
    model = load(folder, dense())
    x = torch.randn(3, 3, 40, 40)
    with torch.no_grad():
        assert torch.equal(model(x), small(x))
    model.train()(x).sum().backward()  # it can be trained
    assert all(p.grad.shape == p.shape for p in model.parameters())


def test_the_program_takes_other_batches(saved):
    folder, small = saved
    program = torch.export.load(folder / "program.pt2").module()
    x = torch.randn(5, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(program(x), small(x))


def test_another_model_is_refused_and_unchanged(saved):
    model = timm.create_model("test_convnext", num_classes=5)
    before = {name: tensor.shape for name, tensor in model.state_dict().items()}
    with pytest.raises(pxframe.PxframeError, match="the model has no module 'bn1'; build the one that was slimmed"):
        pxframe.load_slim(saved[0], model)
    assert {name: tensor.shape for name, tensor in model.state_dict().items()} == before


def test_a_file_where_the_folder_should_be_is_named(saved, tmp_path):
    (tmp_path / "taken").write_text("")
    found = pxframe.Slim(saved[1], {}, {}, 0.0)
    for folder in (tmp_path / "taken", tmp_path / "taken" / "below"):
        with pytest.raises(pxframe.PxframeError, match=r"^cannot make the folder '.*taken"):
            save_slim(folder, found, dense(), torch.randn(2, 3, 32, 32))


def test_damaged_files_are_named(saved, tmp_path):
    for file in saved[0].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(pxframe.PxframeError, match=r"weights\.safetensors cannot be read"):
        pxframe.load_slim(tmp_path, dense())
    (tmp_path / "slim.json").write_text("{}")
    with pytest.raises(pxframe.PxframeError, match=r"slim\.json does not describe a slimmed network of format 1"):
        pxframe.load_slim(tmp_path, dense())


@pytest.mark.parametrize(
    "attributes",
    [
        {"conv1": None},
        {"conv1": {"forward": 3}},
        {"conv1": {"_parameters": 3}},
        {"conv1": {"weight": 3}},
        {"conv1": {"out_channels": "4"}},
        {"conv1": {"out_channels": 1}},
        {"conv1": {"groups": 0}},
        {},
    ],
)
def test_a_description_that_does_not_fit_is_refused_and_changes_nothing(saved, tmp_path, attributes):
    for file in saved[0].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    written = json.loads((tmp_path / "slim.json").read_text())
    written["attributes"] = {**written["attributes"], **attributes} if attributes else {}
    (tmp_path / "slim.json").write_text(json.dumps(written))
    model, before = dense(), dense()
    with pytest.raises(pxframe.PxframeError, match=r"is damaged, or of another model|and should be"):
        pxframe.load_slim(tmp_path, model)
    assert str(model) == str(before)
    assert all(torch.equal(x, y) for x, y in zip(model.parameters(), before.parameters(), strict=True))


def test_what_is_shared_or_frozen_stays_so(tmp_path):
    class Sharing(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.tied, self.b, self.c = (nn.Linear(5, 5, bias=False) for _ in range(4))
            self.tied.weight = self.a.weight
            self.again = self.b

        def forward(self, x):
            return self.c(self.again(self.b(self.a(x) + self.tied(x).relu())).relu())

    torch.manual_seed(0)
    model, x = Sharing().eval(), torch.randn(2, 5)
    mask = torch.ones(5, 5, dtype=torch.bool)
    save_slim(tmp_path, pxframe.slim(model, pxframe.Ticket({"c.weight": mask}), x), model, x)
    with torch.no_grad():
        wanted = model(x)
    frozen = Sharing().eval()
    frozen.c.requires_grad_(False)
    loaded = pxframe.load_slim(tmp_path, frozen)
    assert torch.equal(loaded(x), wanted)
    assert loaded.a.weight is loaded.tied.weight
    assert [name for name, p in loaded.named_parameters() if not p.requires_grad] == ["c.weight"]


def test_a_network_that_torch_cannot_export_is_written_without_a_program(tmp_path, caplog, capfd):
    class Branching(nn.Sequential):
        def forward(self, x):
            return super().forward(x if float(x.sum()) > -1e9 else -x)

    model = Branching(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)).eval()
    mask = torch.ones(4, 3, 1, 1, dtype=torch.bool)
    mask[1] = False
    x = torch.randn(2, 3, 4, 4)
    found = pxframe.slim(model, pxframe.Ticket({"0.weight": mask}), x)
    for name in ("program.pt2", "program.onnx"):
        (tmp_path / name).write_text("of another network")
    files = save_slim(tmp_path, found, model, x)
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(file.name for file in files)
    assert "no program.pt2: torch.export cannot trace the model" in caplog.text
    assert capfd.readouterr().out == ""
    assert "def forward" not in capfd.readouterr().err


@pytest.fixture
def ticket(tmp_path):
    model = pxframe.build_backbone(dict(type="cifar_resnet", depth=8)).eval()
    made = pxframe.prune(
        model, [(torch.randn(2, 3, 32, 32), None)], "random", 0.5, granularity="channel", exclude="linear.*"
    )
    made.meta["made_by"] = {
        "backbone": {"type": "cifar_resnet", "depth": 8},
        "weights": fingerprint(model.state_dict()),
    }
    made.save(tmp_path / "mine.safetensors")
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    return tmp_path / "mine.safetensors"


def test_the_command(ticket, capsys, tmp_path):
    assert cli.main(["slim", str(ticket), "--weights", str(tmp_path / "weights.pth")]) == 0
    printed = capsys.readouterr().out
    assert "layer1.0.conv1" in printed
    assert "outputs differ from those of the masked network by" in printed
    model = pxframe.load_slim(tmp_path / "mine-slim", pxframe.build_backbone(dict(type="cifar_resnet", depth=8)))
    numbers = sum(p.numel() for p in model.parameters())
    assert f"parameters: {numbers:,} of " in printed


def test_the_networks_are_measured_side_by_side(ticket, capsys, tmp_path):
    weights = str(tmp_path / "weights.pth")
    assert cli.main(["bench", str(ticket), "--slim", "--batch", "2", "--rounds", "2", "--weights", weights]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:4]] == ["network", "dense", "masked", "slim"]
    found = json.loads((tmp_path / "mine-bench.json").read_text())
    dense, masked, small = (found["networks"][name] for name in ("dense", "masked", "slim"))
    assert dense["parameters"] == masked["parameters"] > small["parameters"]
    assert dense["macs"] == masked["macs"] > small["macs"]
    assert dense["nonzero"] > masked["nonzero"] > small["nonzero"]
    assert masked["compressed"] < dense["compressed"]
    assert small["memory"] < dense["memory"]
    low, median, high = small["images_per_second"]
    assert 0 < low <= median <= high
    assert found["setting"]["batch"] == 2


def test_a_backbone_that_is_drawn_anew_is_another(ticket, capsys):
    assert cli.main(["slim", str(ticket)]) == 2
    assert "its backbone had other weights than the config gives" in capsys.readouterr().err


def test_a_ticket_that_names_no_backbone(ticket, capsys):
    made = pxframe.Ticket.load(ticket)
    del made.meta["made_by"]
    made.save(ticket)
    assert cli.main(["slim", str(ticket)]) == 2
    assert (
        "made from a model that its file does not name; load it in Python, and call pxframe.slim"
        in capsys.readouterr().err
    )
