"""timm's models as backbones."""

import subprocess
import sys

import pytest
import timm
import torch

from pxframe.errors import PxframeError
from pxframe_plugins.timm import Timm

provider = Timm()
MODELS = [
    ("resnet10t", {}),
    ("convnext_atto", {}),
    ("mobilenetv3_small_050", {}),
    ("vit_tiny_patch16_224", {"img_size": 64}),
]


@pytest.mark.parametrize(("name", "options"), MODELS)
def test_contract(name, options):
    model = provider.build(name, num_classes=3, **options).eval()
    before = dict(model.named_parameters())
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        maps = provider.features(model, x)
    assert provider.channels(model) == [m.shape[1] for m in maps]
    assert all(m.ndim == 4 for m in maps)
    assert dict(model.named_parameters()).keys() == before.keys()
    classifier = provider.classifier(model)
    assert model.get_submodule(classifier).out_features == 3
    width = provider.strip(model)
    with torch.no_grad():
        assert model(x).shape == (1, width)
        assert all(torch.equal(a, b) for a, b in zip(maps, provider.features(model, x), strict=True))
    after = dict(model.named_parameters())
    assert {n for n in before if n not in after} == {n for n in before if n.startswith(f"{classifier}.")}
    assert all(after[n] is before[n] for n in after)


def test_random_residual_branches_do_not_start_at_zero():
    assert all(b.bn2.weight.any() for b in provider.build("resnet10t").layer1)
    assert not any(b.bn2.weight.any() for b in provider.build("resnet10t", zero_init_last=True).layer1)


def test_local_checkpoint(tmp_path):
    source = timm.create_model("resnet10t", num_classes=3)
    torch.save(source.state_dict(), tmp_path / "x.pth")
    loaded = provider.build("resnet10t", num_classes=3, checkpoint=tmp_path / "x.pth").state_dict()
    assert all(torch.equal(loaded[n], t) for n, t in source.state_dict().items())
    with pytest.raises(PxframeError, match=r"fc\.weight \[3, 512\] for \[1000, 512\]"):
        provider.build("resnet10t", checkpoint=tmp_path / "x.pth")


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"model": "resnet5"}, ("no model 'resnet5'", "'resnet50'")),
        ({"model": "zzzzzzzz"}, ("timm.list_models()",)),
        ({"model": "resnet10t", "depht": 3}, ("depht",)),
        ({"model": "resnet10t", "pretrained": True, "checkpoint": "x"}, ("exclude",)),
    ],
)
def test_errors(options, parts):
    with pytest.raises(PxframeError) as error:
        provider.build(**options)
    text = str(error.value)
    assert "\n" not in text
    assert all(part in text for part in parts), text


def test_discovery_imports_no_heavy_library():
    code = "import sys, pxframe; assert {'timm', 'cifar_resnet'} <= set(pxframe.backbones()); "
    code += "assert {'classification', 'segmentation'} <= set(pxframe.tasks()); "
    heavy = ("timm", "mmseg", "mmcv", "mmengine.runner", "torchvision", "sklearn")
    code += f"print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_pretrained_without_network(tmp_path, monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(PxframeError) as error:
        provider.build("resnet18", pretrained=True)
    text = str(error.value)
    assert "\n" not in text
    assert "timm/resnet18" in text
    assert "'checkpoint'" in text
