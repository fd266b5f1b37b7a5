"""MoCo v2's checkpoints: the query encoder, all of it, and nothing else of the file."""

import pytest
import torch
from torch import nn
from torchvision.models import resnet18

from pxframe.base.errors import PxframeError
from pxframe_plugins.mocov2 import MoCoV2

provider = MoCoV2()
X = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def encoder():
    """torchvision's network, as MoCo's authors build it, with statistics of its own."""
    torch.manual_seed(0)
    model = resnet18()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 2)
    model.fc = nn.Identity()
    return model.eval()


def moco(encoder, path, prefix="module.encoder_q.", extra=()):
    """A file in the format of the authors' main_moco.py."""
    state = {prefix + n: t for n, t in encoder.state_dict().items()}
    for name, shape in {"fc.0.weight": (512, 512), "fc.0.bias": (512,), "fc.2.weight": (128, 512)}.items():
        state[prefix + name] = torch.zeros(shape)
    state |= {"module.encoder_k.conv1.weight": torch.zeros(64, 3, 7, 7), "module.encoder_k.fc.2.bias": torch.zeros(128)}
    state |= {"module.queue": torch.zeros(128, 64), "module.queue_ptr": torch.zeros(1, dtype=torch.long)}
    state |= dict.fromkeys(extra, torch.zeros(1))
    groups = [{"lr": 0.03, "momentum": 0.9, "params": [0]}]
    optimizer = {"state": {0: {"momentum_buffer": torch.zeros(2)}}, "param_groups": groups}
    torch.save({"epoch": 200, "arch": "resnet18", "state_dict": state, "optimizer": optimizer}, path)
    return path


def test_the_encoder_is_the_authors(encoder, tmp_path):
    model = provider.build(moco(encoder, tmp_path / "x.pth.tar"), arch="resnet18").eval()
    with torch.no_grad():
        assert torch.allclose(model(X), encoder(X), atol=1e-5)
    assert [n for n, _ in model.named_parameters()] == [n for n, _ in encoder.named_parameters()]
    assert provider.classifier(model) == ""
    assert provider.strip(model) == 512


@pytest.mark.parametrize("prefix", ["encoder_q.", "module.encoder.", "backbone.", ""])
def test_other_prefixes(prefix, encoder, tmp_path):
    state = {prefix + n: t for n, t in encoder.state_dict().items()} | {f"{prefix}fc.weight": torch.zeros(128, 512)}
    torch.save(state, tmp_path / "x.pth")
    loaded = provider.build(tmp_path / "x.pth", arch="resnet18").state_dict()
    assert all(torch.equal(loaded[n], t) for n, t in encoder.state_dict().items())


def test_a_classifier_is_new_and_random(encoder, tmp_path):
    model = provider.build(moco(encoder, tmp_path / "x.pth"), num_classes=3, arch="resnet18").eval()
    assert model.fc.weight.count_nonzero() == 3 * 512
    assert provider.classifier(model) == "fc"
    assert provider.strip(model) == 512
    with torch.no_grad():
        assert torch.allclose(model(X), encoder(X), atol=1e-5)


def test_missing_and_unexpected_names_are_listed(encoder, tmp_path):
    path = moco(encoder, tmp_path / "x.pth", extra=("module.encoder_q.bn9.weight", "module.predictor.weight"))
    content = torch.load(path)
    del content["state_dict"]["module.encoder_q.bn1.bias"]
    torch.save(content, path)
    with pytest.raises(PxframeError) as error:
        provider.build(path, arch="resnet18")
    text = str(error.value)
    assert "\n" not in text
    assert "lacks bn1.bias;" in text
    assert text.endswith("unexpected bn9.weight, predictor.weight")


def test_another_architecture_is_refused(encoder, tmp_path):
    with pytest.raises(PxframeError, match=r"lacks .*layer1\.2\.conv1\.weight"):
        provider.build(moco(encoder, tmp_path / "x.pth"), arch="resnet34")
    with pytest.raises(PxframeError, match=r"known: .*resnet50"):
        provider.build(tmp_path / "x.pth", arch="vgg16")


def test_models():
    assert provider.models("resnet1*") == ["resnet18", "resnet101", "resnet152"]
