"""timm's models as backbones."""

import copy

import pytest
import timm
import torch
from timm.models.vision_transformer import checkpoint_filter_fn

from pxframe.base.errors import PxframeError
from pxframe_plugins.timm_models import Timm

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
        ({"model": "resnet10t.c3"}, ("no weights 'c3' of 'resnet10t'", "c3_in1k")),
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


def test_pretrained_without_network(tmp_path, monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(PxframeError) as error:
        provider.build("resnet18", pretrained=True)
    text = str(error.value)
    assert "\n" not in text
    for part in ("model.safetensors of timm/resnet18.a1_in1k", str(tmp_path), "'checkpoint'"):
        assert part in text


def test_pretrained_where_there_are_no_weights():
    with pytest.raises(PxframeError, match="'coatnet_pico_rw_224': the library knows none"):
        provider.build("coatnet_pico_rw_224", pretrained=True)


@pytest.mark.parametrize("output_stride", [16, 8])
@pytest.mark.parametrize("name", ["resnet10t", "convnext_atto", "tinynet_e"])
def test_the_dense_form_is_timm_s_own(name, output_stride):
    model = copy.deepcopy(provider.build(name, num_classes=3).eval())
    for norm in model.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(norm.running_var, 0.5, 2)
    reference = timm.create_model(name, features_only=True, output_stride=output_stride).eval()
    own = {n: t.clone() for n, t in model.state_dict().items()}
    renamed = {n.replace(".", "_", 1): n for n in own}  # the wrapper calls stages.0 stages_0
    reference.load_state_dict({n: own[n if n in own else renamed[n]] for n in reference.state_dict()})
    before = dict(model.named_parameters())
    assert provider.dense(model, output_stride) is model
    assert not model.training
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        maps, expected = provider.features(model, x), reference(x)
    assert maps[-1].shape[-1] == 64 // output_stride
    assert provider.channels(model) == [m.shape[1] for m in maps]
    assert all(torch.equal(a, b) for a, b in zip(maps[-len(expected) :], expected, strict=True))
    assert all(p is before[n] for n, p in model.named_parameters())  # the same tensors, trained in either form
    assert all(torch.equal(t, own[n]) for n, t in model.state_dict().items())


def test_dense_keeps_the_options_and_goes_back():
    model = provider.build("resnet18", num_classes=3, in_chans=1).eval()
    model.conv1.weight.requires_grad_(False)
    x = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        before = provider.features(model, x)
        fine = provider.features(provider.dense(model, 8), x)
        after = provider.features(provider.dense(copy.deepcopy(model), 32), x)
    assert torch.allclose(fine[-1][..., ::4, ::4], before[-1], atol=1e-5)  # the strided network's pixels
    assert [n for n, p in model.named_parameters() if not p.requires_grad] == ["conv1.weight"]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize(("name", "output_stride"), [("test_vit", 8), ("mobilenetv3_small_050", 8), ("resnet10t", 4)])
def test_dense_forms_that_there_are_not(name, output_stride):
    with pytest.raises(PxframeError, match=f"'output_stride' of '{name}.*' from .* to {output_stride}") as error:
        provider.dense(provider.build(name), output_stride)
    assert "\n" not in str(error.value)


def test_vision_transformers_of_dynamic_size():
    """At another size the positional embedding is interpolated, as timm does for a model built for that size."""
    model = provider.build("test_vit", num_classes=3, dynamic_img_size=True).eval()
    fixed = timm.create_model("test_vit", num_classes=3, img_size=64).eval()
    fixed.load_state_dict(checkpoint_filter_fn(model.state_dict(), fixed))
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(model(x), fixed(x), atol=1e-5)
        maps = provider.features(model, x)
    assert all(m.shape == (1, 64, 4, 4) for m in maps)
    assert provider.channels(model) == [64] * len(maps)


def test_models_by_wildcard_and_tag():
    assert {"resnet50", "resnet50d"} <= set(provider.models("resnet50*"))
    assert provider.models("resnet50.*") == timm.list_models("resnet50.*", pretrained=True)
    assert provider.models("resnet5") == []
