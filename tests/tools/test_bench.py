"""``pxframe bench --sparse``: what it prints and writes."""

import json

import pytest
import torch

import pxframe
from pxframe.speed import clock
from pxframe.speed.csr import missing
from pxframe.ticket.file import fingerprint
from pxframe_tools import cli

CONFIG = {"type": "timm", "model": "test_resnet", "pretrained": False}


@pytest.fixture
def command(tmp_path, monkeypatch):
    """On a ticket of a small network, with measurements as short as can be."""
    monkeypatch.setattr(clock, "_LEAST", 1e-6)
    torch.manual_seed(0)
    model = pxframe.build_backbone(dict(CONFIG)).eval()
    made = pxframe.prune(model, [(torch.randn(2, 3, 32, 32), None)], "random", 0.9)
    made.meta["made_by"] = {"backbone": CONFIG, "weights": fingerprint(model.state_dict())}
    made.save(tmp_path / "mine.safetensors")
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    weights = str(tmp_path / "weights.pth")
    return ["bench", str(tmp_path / "mine.safetensors"), "--weights", weights, "--batch", "2", "--rounds", "2"]


@pytest.mark.skipif(bool(missing()), reason="this torch has no product of CSR matrices")
def test_sparse_layers_and_their_break_even(command, capsys, tmp_path, recwarn):
    assert cli.main([*command, "--sparse"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "timing each linear layer and 1x1 convolution, dense and sparse"
    assert [line.split()[0] for line in lines[1:5]] == ["network", "dense", "masked", "sparse"]
    titles = next(line for line in lines if line.startswith("layers "))
    assert "sparse at 0.5" in titles
    assert titles.endswith("faster from")
    found = json.loads((tmp_path / "mine-bench.json").read_text())
    layers, sizes = found["layers"], found["break_even"]
    chosen = [name for name, (dense, csr) in layers["seconds"].items() if csr < dense]
    assert list(layers["sparse"]) == chosen
    total = len(layers["sparse"]) + len(layers["dense"])
    said = f"sparse: {len(chosen)} of {total} linear layers and convolutions are faster in CSR form, and use it"
    assert said in lines
    masked, sparse = (found["networks"][name] for name in ("masked", "sparse"))
    assert sparse["nonzero"] == masked["nonzero"]
    assert (sparse["macs"] < masked["macs"]) == bool(chosen)
    assert 1 <= len(sizes) <= 5
    for size in sizes:
        assert set(size) == {"kind", "outputs", "inputs", "positions", "dense", "csr", "faster_from"}
        assert set(size["csr"]) == {"0.5", "0.2", "0.1", "0.05", "0.02", "0.01"}
        assert size["faster_from"] is None or size["csr"][f"{size['faster_from']:g}"] < size["dense"]
    assert not [warning for warning in recwarn if "CSR" in str(warning.message)]


def test_without_the_option_nothing_is_timed_layer_by_layer(command, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("pxframe.speed.cpu.sparse_on_cpu", lambda *_: pytest.fail("nobody asked for it"))
    assert cli.main(command) == 0
    assert "sparse" not in capsys.readouterr().out
    assert set(json.loads((tmp_path / "mine-bench.json").read_text())) == {"setting", "networks"}


def test_sparse_layers_are_for_a_cpu(command, capsys):
    assert cli.main([*command, "--sparse", "--device", "cuda"]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "--sparse is for a CPU: leave --device out; for a GPU there is pxframe.sparse_on_gpu" in told
