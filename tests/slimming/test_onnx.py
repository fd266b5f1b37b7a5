"""Slim networks as ONNX files: onnxruntime gives what torch gives, for batches of any size."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from slim_networks import DETECTORS, deeplab, shaken, without_rows
from torch import nn
from torchvision.models.segmentation import lraspp_mobilenet_v3_large

import pxframe
from pxframe.slimming import onnx_file
from pxframe.slimming.quiet import quiet
from pxframe.ticket.file import fingerprint
from pxframe_tools import cli

onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install pxframe[onnx]")
onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install pxframe[onnx]")
pytest.importorskip("onnxscript", reason="onnxscript is not installed: pip install pxframe[onnx]")


def slimmed(model, x, stay):
    model = shaken(model)
    found = pxframe.slim(model, without_rows(model, 0.4, stay), x)
    assert found.channels
    return found.model


def outputs(path, x):
    """By onnxruntime, without this library's own reading of the file."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    assert given.shape[0] == "batch"
    return session.run(None, {given.name: x.numpy()})


def check(model, path, *shape):
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        expected = model.eval()(x)
    expected = list(expected.values()) if isinstance(expected, dict) else expected
    expected = list(expected) if isinstance(expected, (tuple, list)) else [expected]
    given = [torch.from_numpy(one) for one in outputs(path, x)]
    assert len(given) == len(expected)
    largest = max(float(one.abs().max()) for one in expected)
    for one, other in zip(expected, given, strict=True):
        assert (one - other).abs().max() < 1e-4 * largest


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A slim network, its file, and what was printed when it was written."""
    path = tmp_path_factory.mktemp("onnx") / "program.onnx"
    torch.manual_seed(0)
    model = slimmed(pxframe.build_backbone(dict(type="cifar_resnet", depth=8)), torch.randn(2, 3, 32, 32), ["linear"])
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    error = pxframe.export_onnx(model, torch.randn(1, 3, 32, 32, generator=torch.Generator()), path)
    assert 0 <= error <= onnx_file.TOLERANCE
    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    return model, path


def test_cifar_resnet_takes_batches_of_any_size(written):
    model, path = written
    for size in (1, 2, 7):
        check(model, path, size, 3, 32, 32)
    assert [file.name for file in path.parent.iterdir()] == ["program.onnx"]


def test_the_file_tells_nothing_of_the_machine(written):
    content = written[1].read_bytes()
    for place in (os.path.dirname(torch.__file__), os.path.dirname(pxframe.__file__), os.getcwd()):
        assert place.encode() not in content
    onnx.checker.check_model(onnx.load(written[1]))


@pytest.mark.slow
def test_timm(tmp_path):
    torch.manual_seed(0)
    model = slimmed(timm.create_model("test_resnet", num_classes=5), torch.randn(2, 3, 32, 32), ["fc"])
    pxframe.export_onnx(model, torch.randn(2, 3, 32, 32), tmp_path / "x.onnx")
    check(model, tmp_path / "x.onnx", 3, 3, 32, 32)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["deeplab", "lraspp"])
def test_segmentation(name, tmp_path):
    torch.manual_seed(0)
    x = torch.randn(2, 3, 64, 64)
    if name == "deeplab":
        small = slimmed(deeplab(), x, ["conv_seg"])
    else:
        model = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=3)
        small = slimmed(model, x, ["low_classifier", "high_classifier"])
    pxframe.export_onnx(small, x, tmp_path / "x.onnx")
    check(small, tmp_path / "x.onnx", 3, 3, 64, 64)


class BeforeBoxes(nn.Module):
    """A detector's backbone and the heads that read its maps, without the part that picks boxes."""

    def __init__(self, detector):
        super().__init__()
        self.detector = detector

    def forward(self, x):
        maps = list(self.detector.backbone(x).values())
        if hasattr(self.detector, "rpn"):
            scores, shifts = self.detector.rpn.head(maps)
            return [*scores, *shifts]
        return list(self.detector.head(maps).values())


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("retinanet", "fcos")]


@pytest.mark.parametrize("name", ["fasterrcnn", *SLOW])
def test_detection(name, tmp_path):
    torch.manual_seed(0)
    stay = ("cls_logits", "bbox_", "cls_score")
    detector = slimmed(DETECTORS[name](), ([torch.rand(3, 64, 64)],), stay)
    part = BeforeBoxes(detector).eval()
    pxframe.export_onnx(part, torch.randn(2, 3, 64, 64), tmp_path / "x.onnx")
    check(part, tmp_path / "x.onnx", 3, 3, 64, 64)


@pytest.mark.slow
@pytest.mark.parametrize("name", DETECTORS)
def test_whole_detectors_are_beyond_torch_s_exporter(name):
    """When this fails torch has learned it, and the guide should say so."""
    with pytest.raises(torch.onnx.errors.OnnxExporterError), quiet():
        torch.onnx.export(DETECTORS[name]().eval(), ([torch.rand(3, 64, 64)],), dynamo=True, verbose=False)


def test_a_list_of_images_is_refused_with_a_way_out(tmp_path):
    with pytest.raises(pxframe.PxframeError, match=r"export the part that takes a tensor, such as model\.backbone$"):
        pxframe.export_onnx(DETECTORS["fcos"]().eval(), ([torch.rand(3, 64, 64)],), tmp_path / "x.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [None, b"what was there"])
def test_other_outputs_are_refused_and_nothing_is_written(tmp_path, monkeypatch, content):
    path = tmp_path / "x.onnx"
    if content is not None:
        path.write_bytes(content)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3)).eval()
    exported = onnx_file._exported

    def other(model, example):
        with torch.no_grad():
            model[1].bias += 1e-3
            found = exported(model, example)
            model[1].bias -= 1e-3
        return found

    monkeypatch.setattr(onnx_file, "_exported", other)
    with pytest.raises(pxframe.PxframeError, match=r"x\.onnx is not written: onnxruntime's outputs differ") as caught:
        pxframe.export_onnx(model, torch.randn(2, 3, 2, 2), path)
    assert "\n" not in str(caught.value)
    assert [file.read_bytes() for file in tmp_path.iterdir()] == ([] if content is None else [content])


def test_a_network_that_knows_one_batch_size_is_refused(tmp_path):
    class Fixed(nn.Linear):
        def forward(self, x):
            return super().forward(x + torch.arange(2.0).view(2, 1) if len(x) == 2 else x)

    with pytest.raises(pxframe.PxframeError) as caught:
        pxframe.export_onnx(Fixed(4, 3).eval(), torch.randn(2, 4), tmp_path / "x.onnx")
    assert "onnxruntime cannot run what torch exported with 3 samples" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_network_that_torch_cannot_trace_is_refused_in_one_line(tmp_path, capfd):
    class Branching(nn.Linear):
        def forward(self, x):
            return super().forward(x if float(x.sum()) > -1e9 else -x)

    with pytest.raises(pxframe.PxframeError, match=r"^torch cannot export the model to ONNX \(") as caught:
        pxframe.export_onnx(Branching(4, 3).eval(), torch.randn(2, 4), tmp_path / "x.onnx")
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_what_to_install(monkeypatch, tmp_path, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(pxframe.PxframeError, match=rf"\(no {package}\): pip install pxframe\[onnx\]$"):
        pxframe.export_onnx(nn.Linear(4, 3), torch.randn(2, 4), tmp_path / "x.onnx")


def test_several_inputs_by_name(tmp_path):
    class Sum(nn.Module):
        def forward(self, left, right):
            return left - 2 * right

    x = {"right": torch.randn(2, 3), "left": torch.randn(2, 3)}
    assert pxframe.export_onnx(Sum().eval(), x, tmp_path / "x.onnx") < 1e-6
    session = onnxruntime.InferenceSession(str(tmp_path / "x.onnx"))
    (given,) = session.run(None, {name: value.numpy() for name, value in x.items()})
    assert torch.allclose(torch.from_numpy(given), x["left"] - 2 * x["right"])


@pytest.fixture
def ticket(tmp_path):
    model = pxframe.build_backbone(dict(type="cifar_resnet", depth=8)).eval()
    made = without_rows(model, 0.5, ["linear"])
    made_by = {"backbone": {"type": "cifar_resnet", "depth": 8}, "weights": fingerprint(model.state_dict())}
    made.meta.update(made_by=made_by, input=[3, 32, 32])
    made.save(tmp_path / "mine.safetensors")
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    return ["slim", str(tmp_path / "mine.safetensors"), "--weights", str(tmp_path / "weights.pth"), "--onnx"]


def test_the_command(ticket, tmp_path, capfd):
    assert cli.main(ticket) == 0
    printed = capfd.readouterr().out.splitlines()
    assert printed[-2].startswith("outputs of onnxruntime differ from those of torch by ")
    assert printed[-1].endswith("mine-slim/program.onnx")
    small = pxframe.load_slim(tmp_path / "mine-slim", pxframe.build_backbone(dict(type="cifar_resnet", depth=8)))
    check(small, tmp_path / "mine-slim" / "program.onnx", 3, 3, 32, 32)


@pytest.mark.slow
def test_the_command_prints_its_own_words_only(ticket):
    """A process of its own, since pytest keeps warnings from being printed."""
    code = "import sys; from pxframe_tools import cli; sys.exit(cli.main(sys.argv[1:]))"
    done = subprocess.run([sys.executable, "-c", code, *ticket], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    layers, _, others = done.stdout.partition("parameters: ")
    assert all("layer" in line for line in layers.splitlines())
    assert [line.split()[0] for line in others.splitlines()[1:]] == ["MACs", "outputs", "outputs", "wrote"]


@pytest.mark.slow
def test_the_guide_s_example_runs(tmp_path, monkeypatch):
    guide = (Path(__file__).parents[2] / "docs" / "slim.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    scope = {}
    exec(blocks[0], scope)
    exec(next(block for block in blocks if "export_onnx" in block), scope)
    assert scope["numbers"].shape == (7, 10)


def test_the_command_asks_for_the_packages_before_work_begins(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    (tmp_path / "mine.safetensors").write_bytes(b"no ticket")
    assert cli.main(["slim", str(tmp_path / "mine.safetensors"), "--onnx"]) == 2
    assert "pip install pxframe[onnx]" in capsys.readouterr().err
