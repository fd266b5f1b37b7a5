"""What all providers promise: one network, one set of names, one ticket for each of its forms."""

import copy
import json

import pytest
import torch

import pxframe
from pxframe.base.errors import PxframeError
from pxframe.plugin.registry import build

#: Options, and an output stride that is not the network's own (None where it has no dilated form).
CASES = {
    "timm": ({"model": "resnet10t", "num_classes": 3}, 8),
    "timm ViT": ({"model": "test_vit", "num_classes": 3, "dynamic_img_size": True}, None),
    "mocov2": ({"arch": "resnet18", "num_classes": 3}, 16),
    "open_clip": ({"model": "small-RN"}, 8),
    "open_clip ViT": ({"model": "small-ViT"}, None),
    "cifar_resnet": ({"depth": 8, "shortcut": "B"}, None),
    "vgg16_bn": ({"width": 4}, None),
    "resnet18": ({}, None),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A MoCo checkpoint, and configs of small CLIP models."""
    import open_clip
    from torchvision.models import resnet18

    folder = tmp_path_factory.mktemp("files")
    state = {f"module.encoder_q.{n}": t for n, t in resnet18().state_dict().items()}
    torch.save({"state_dict": state}, folder / "moco.pth")
    towers = {
        "small-RN": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16},
        "small-ViT": {"image_size": 64, "layers": 2, "width": 64, "patch_size": 16},
    }
    for name, tower in towers.items():
        config = {"embed_dim": 8, "vision_cfg": tower, "text_cfg": {}}
        (folder / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)
    return folder


@pytest.mark.parametrize("case", CASES)
def test_one_ticket_fits_every_form(case, files):
    options, output_stride = CASES[case]
    provider = build("backbone", case.split()[0])
    if case == "mocov2":
        options = {**options, "checkpoint": files / "moco.pth"}
    torch.manual_seed(0)
    model = provider.build(**options).eval()
    before = {n: p.clone() for n, p in model.named_parameters()}
    classifier = provider.classifier(model)
    exclude = (f"{classifier}.*",) if classifier else ()
    x = torch.randn(2, 3, 64, 64)
    ticket = pxframe.prune(
        model, [(x, torch.zeros(2, dtype=torch.long))], scorer="random", sparsity=0.3, exclude=exclude
    )
    forms = {"stripped": copy.deepcopy(model)}
    width = provider.strip(forms["stripped"])
    if output_stride:
        forms["dense"] = provider.dense(copy.deepcopy(model), output_stride)
        forms["both"] = provider.dense(copy.deepcopy(forms["stripped"]), output_stride)
        forms["both, otherwise"] = provider.dense(copy.deepcopy(model), output_stride)
        provider.strip(forms["both, otherwise"])
    for form, network in forms.items():
        after = dict(network.named_parameters())
        gone = {n for n in before if classifier and n.startswith(f"{classifier}.")} if form != "dense" else set()
        assert after.keys() == before.keys() - gone, form
        assert all(torch.equal(after[n], before[n]) for n in after), form
        assert ticket.apply(network) == "", form
        assert all(not after[n][~mask].any() for n, mask in ticket.masks.items()), form
        with torch.no_grad():
            maps = provider.features(network, x)
            if form != "dense":
                assert network(x).shape == (2, width), form
        assert [m.shape[1] for m in maps] == provider.channels(network), form
        if form != "stripped":
            assert maps[-1].shape[-1] == 64 // output_stride, form


@pytest.mark.parametrize("case", [c for c, (_, stride) in CASES.items() if stride is None])
def test_networks_without_a_dilated_form_say_so(case, files):
    options, _ = CASES[case]
    provider = build("backbone", case.split()[0])
    model = provider.build(**options)
    assert provider.dense(model, None) is model
    with pytest.raises(PxframeError, match=f"backbone {provider.name!r}.*'output_stride'") as error:
        provider.dense(model, 8)
    assert "\n" not in str(error.value)


def test_models_match_a_wildcard():
    named = {name: build("backbone", name) for name in ("cifar_resnet", "vgg16_bn", "resnet18")}
    assert {name: p.models("*2*") for name, p in named.items()} == {
        "cifar_resnet": ["resnet20", "resnet32"],
        "vgg16_bn": [],
        "resnet18": [],
    }
    assert named["vgg16_bn"].models() == ["vgg16_bn"]
