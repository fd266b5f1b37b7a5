"""The small ResNets: their names, shapes, shortcuts, checkpoints, and the real network."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from pxframe.base.errors import PxframeError
from pxframe.files.paths import locate
from pxframe_plugins.cifar_resnet import Block, CifarResNet

provider = CifarResNet()


def data_or_skip(name):
    if "PXFRAME_DATA" not in os.environ:
        pytest.skip("PXFRAME_DATA is not set")
    try:
        return locate(f"$PXFRAME_DATA/{name}")
    except PxframeError as error:
        pytest.skip(str(error))


# Table 6 of He et al.: 0.27, 0.46, 0.66 and 0.85 million parameters.
@pytest.mark.parametrize(("depth", "millions"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85)])
def test_sizes_are_the_paper_s(depth, millions):
    count = sum(p.numel() for p in provider.build(depth=depth).parameters())
    assert count / 1e6 == pytest.approx(millions, abs=0.006)


def test_parameter_names():
    names = {n for n, _ in provider.build(depth=8, shortcut="B").named_parameters()}
    assert {"conv1.weight", "bn1.bias", "layer1.0.conv2.weight", "layer3.0.bn2.weight", "linear.bias"} <= names
    assert {"layer2.0.downsample.0.weight", "layer2.0.downsample.1.bias"} <= names
    assert not any("downsample" in n for n, _ in provider.build(depth=8).named_parameters())
    assert not any("layer1.0.downsample" in n for n in names)


def test_shortcut_a_takes_every_second_pixel_and_pads_channels():
    block = Block(2, 4, 2, "A").eval()
    nn.init.zeros_(block.bn2.weight)  # the branch gives zero, the shortcut remains
    x = torch.rand(1, 2, 4, 4)
    out = block(x)
    assert torch.equal(out[:, 1:3], x[:, :, ::2, ::2])
    assert not out[:, [0, 3]].any()


def test_features_end_in_what_the_classifier_reads():
    model = provider.build(depth=8, width=4, num_classes=3).eval()
    x = torch.rand(2, 3, 16, 24)
    maps = provider.features(model, x)
    assert [tuple(m.shape) for m in maps] == [(2, 4, 16, 24), (2, 8, 8, 12), (2, 16, 4, 6)]
    assert provider.channels(model) == [m.shape[1] for m in maps]
    logits = model(x)
    assert torch.allclose(logits, model.linear(maps[-1].mean((2, 3))), atol=1e-6)
    assert provider.classifier(model) == "linear"
    assert provider.strip(model) == 16
    assert torch.allclose(model(x), maps[-1].mean((2, 3)), atol=1e-6)


@pytest.mark.parametrize("options", [{"depth": 18}, {"shortcut": "C"}])
def test_bad_options(options):
    with pytest.raises(PxframeError):
        provider.build(**options)


def test_plain_prefixed_and_safetensors_checkpoints(tmp_path):
    source = provider.build(depth=8, num_classes=3)
    state = source.state_dict()
    torch.save(state, tmp_path / "plain.pth")
    torch.save({"state_dict": {f"module.{n}": t for n, t in state.items()}, "best": 91.7}, tmp_path / "wrapped.th")
    task = {f"backbone.{n}": t for n, t in state.items()} | {"head.weight": torch.zeros(2)}
    torch.save({"state_dict": task, "meta": {"epoch": 3}}, tmp_path / "task.pth")
    save_file(state, tmp_path / "x.safetensors")
    for name in ("plain.pth", "wrapped.th", "task.pth", "x.safetensors"):
        loaded = provider.build(depth=8, num_classes=3, checkpoint=tmp_path / name).state_dict()
        assert all(torch.equal(loaded[n], t) for n, t in state.items()), name


def one_line(error, *parts):
    text = str(error.value)
    assert "\n" not in text
    assert all(part in text for part in parts), text


def test_checkpoints_that_do_not_fit(tmp_path):
    state = provider.build(depth=8).state_dict()
    del state["bn1.bias"]
    state["conv1.weight"] = torch.zeros(16, 1, 3, 3)
    state["fc.weight"] = torch.zeros(1)
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(PxframeError) as error:
        provider.build(depth=8, checkpoint=tmp_path / "x.pth")
    one_line(error, "lacks bn1.bias", "unexpected fc.weight", "conv1.weight [16, 1, 3, 3] for [16, 3, 3, 3]")


class Sneaky:
    """Reaches a function through getattr, which mmengine's histories use."""

    def __reduce__(self):
        return getattr, (print, "__call__")


class Evil:
    def __reduce__(self):
        return print, ("code in the checkpoint ran",)


def test_a_checkpoint_of_plain_mmengine_is_read(tmp_path):
    """Its own save function, with a history of logged numbers in it: arrays, NumPy scalars, methods by getattr."""
    from mmengine.logging import HistoryBuffer
    from mmengine.runner import save_checkpoint

    model = provider.build(depth=8)
    history = HistoryBuffer([1.0, 2.0], [1, 1], 10)
    hub = {"log_scalars": {"train/loss": history}, "runtime_info": {"lr": np.float64(0.1)}, "resumed_keys": {}}
    state = {f"backbone.{n}": t for n, t in model.state_dict().items()}
    save_checkpoint({"meta": {"epoch": 1}, "state_dict": state, "message_hub": hub}, str(tmp_path / "epoch_1.pth"))
    loaded = provider.build(depth=8, checkpoint=tmp_path / "epoch_1.pth")
    assert all(torch.equal(t, loaded.state_dict()[n]) for n, t in model.state_dict().items())


def test_checkpoints_that_cannot_be_read(tmp_path, capsys):
    torch.save({"state_dict": Evil()}, tmp_path / "evil.pth")
    torch.save({"state_dict": Sneaky()}, tmp_path / "sneaky.pth")
    torch.save(provider.build(depth=8).state_dict(), tmp_path / "cut.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "cut.pth").read_bytes()[:5000])
    (tmp_path / "text.pth").write_text("not a network")
    (tmp_path / "text.safetensors").write_text("not a network")
    torch.save([1, 2], tmp_path / "list.pth")
    cases = {
        "evil.pth": "run code",
        "sneaky.pth": "run code",
        "cut.pth": "damaged",
        "text.pth": "damaged",
        "text.safetensors": "damaged",
        "list.pth": "state dict",
        "missing.pth": "there is no",
    }
    for name, part in cases.items():
        with pytest.raises(PxframeError) as error:
            provider.build(depth=8, checkpoint=tmp_path / name)
        one_line(error, name, part)
    assert capsys.readouterr().out == ""


def test_the_real_network_reaches_its_accuracy():
    """81.0 % on the 10,000 images; 400 of them give that within three standard errors (6 points)."""
    checkpoint = data_or_skip("resnet20-12fca82f.th")
    folder = data_or_skip("cifar10-test/cifar10/test")
    model = provider.build(depth=20, checkpoint=checkpoint).eval()
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    right = total = 0
    for label, kind in enumerate(sorted(Path(folder).iterdir())):
        files = sorted(kind.iterdir())[:40]
        images = torch.stack([torch.from_numpy(np.array(Image.open(f).convert("RGB"))) for f in files])
        images = (images / 255 - mean) / std
        with torch.no_grad():
            right += int((model(images.permute(0, 3, 1, 2)).argmax(1) == label).sum())
        total += len(files)
    assert 100 * right / total == pytest.approx(81.0, abs=6)
