"""CLIP's image towers against the library's own, at tiny size."""

import copy
import json

import open_clip
import pytest
import torch
import torch.nn.functional as F
from open_clip.transformer import QuickGELU
from torch import nn

import pxframe
from pxframe.base.errors import PxframeError
from pxframe_plugins.clip_models import OpenCLIP

provider = OpenCLIP()
TEXT = {"context_length": 4, "vocab_size": 16, "width": 16, "heads": 1, "layers": 3}  # more layers than the tower's
TOWERS = {
    "tiny-RN": {"image_size": 64, "layers": [1, 2, 1, 1], "width": 16, "head_width": 64},
    "tiny-ViT": {"image_size": 64, "layers": 2, "width": 32, "head_width": 16, "patch_size": 16},
}


@pytest.fixture(scope="module", autouse=True)
def configs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("configs")
    for name, tower in TOWERS.items():
        config = {"embed_dim": 8, "vision_cfg": tower, "text_cfg": TEXT}
        (folder / f"{name}.json").write_text(json.dumps(config))
        (folder / f"{name}-quickgelu.json").write_text(json.dumps({**config, "quick_gelu": True}))
    open_clip.add_model_config(folder)


def clip(name):
    """The library's whole model, its batch norms with statistics of their own."""
    torch.manual_seed(0)
    model = open_clip.create_model(name).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 2)
    return model


def images(size, *, batch=2):
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def run(function, *args):
    return function(*args)


@pytest.mark.parametrize("name", TOWERS)
@pytest.mark.parametrize("part", ["whole", "tower", "wrapped"])
def test_a_local_file_gives_the_library_s_tower(name, part, tmp_path):
    source = clip(name)
    state = (source.visual if part == "tower" else source).state_dict()
    if part == "wrapped":
        state = {"epoch": 1, "name": "run", "state_dict": {f"module.{n}": t for n, t in state.items()}}
    torch.save(state, tmp_path / "x.pt")
    tower = provider.build(name, checkpoint=tmp_path / "x.pt").eval()
    x = images((64, 64))
    expected = run(source.visual, x)
    assert torch.equal(run(tower, x), expected)
    assert list(tower.state_dict()) == list(source.visual.state_dict())
    assert isinstance(tower, type(source.visual))
    assert provider.strip(tower) == 8
    assert torch.equal(run(tower, x), expected)  # the embedding is what is left
    maps = run(source.visual.forward_intermediates, x)["image_intermediates"]
    ours = run(provider.features, tower, x)
    assert all(torch.equal(a, b) for a, b in zip(ours, maps[-len(ours) :], strict=True))
    assert provider.channels(tower) == [m.shape[1] for m in ours]
    assert len(ours) == (4 if name == "tiny-RN" else 2)


def resized(position, old, new):
    """A positional embedding ``[1 + h w, C]`` for another grid, the class token's row kept."""
    grid = position[1:].T.reshape(1, -1, *old)
    grid = F.interpolate(grid, new, mode="bicubic", antialias=True, align_corners=False)
    return torch.cat([position[:1], grid.flatten(2)[0].T])


@pytest.mark.parametrize("size", [(96, 64), (32, 64)])
def test_other_image_sizes_interpolate_the_positional_embedding(size):
    x = images(size)
    vit = provider.build("tiny-ViT").eval()
    other = copy.deepcopy(vit)
    other.grid_size = tuple(s // 16 for s in size)
    other.positional_embedding = nn.Parameter(resized(vit.positional_embedding.detach(), (4, 4), other.grid_size))
    assert torch.allclose(run(vit, x), run(other, x), atol=1e-5)
    assert [tuple(m.shape[2:]) for m in run(provider.features, vit, x)] == [other.grid_size] * 2

    resnet = provider.build("tiny-RN").eval()
    other, grid = copy.deepcopy(resnet), tuple(s // 32 for s in size)
    position = resized(resnet.attnpool.positional_embedding.detach(), (2, 2), grid)
    other.attnpool.positional_embedding = nn.Parameter(position)
    assert torch.allclose(run(resnet, x), run(other, x), atol=1e-5)


def test_gradients_reach_the_positional_embedding_at_another_size():
    for name in TOWERS:
        tower = provider.build(name)
        before = dict(tower.named_parameters())
        tower(images((96, 96))).sum().backward()
        position = next(p for n, p in before.items() if n.endswith("positional_embedding"))
        assert position.grad.any()
        assert all(p is before[n] for n, p in tower.named_parameters())


@pytest.mark.parametrize("output_stride", [16, 8])
def test_dilation_keeps_the_strided_network_s_pixels(output_stride):
    tower = provider.build("tiny-RN").eval()
    nn.init.normal_(tower.layer4[0].bn3.weight)
    names, x = list(tower.state_dict()), images((128, 128))
    coarse = run(provider.features, tower, x)[-1]
    assert coarse.shape[-1] == 4
    dense = provider.dense(copy.deepcopy(tower), output_stride)
    fine = run(provider.features, dense, x)[-1]
    assert fine.shape[-1] == 128 // output_stride
    step = 32 // output_stride
    assert torch.allclose(fine[..., ::step, ::step], coarse, rtol=1e-4, atol=1e-4 * coarse.abs().max().item())
    assert list(dense.state_dict()) == names
    assert torch.equal(run(provider.features, provider.dense(dense, 32), x)[-1], coarse)  # and back


def test_dilated_pixels_are_those_of_shifted_images():
    """Between the strided network's pixels lie those it would give for the image moved; away from the border."""
    tower = provider.build("tiny-RN").eval()
    x = images((256, 256), batch=1)
    moved = F.pad(x, (0, 16, 0, 0))[..., 16:]
    fine = run(provider.features, provider.dense(copy.deepcopy(tower), 16), x)[-1]
    coarse = run(provider.features, tower, moved)[-1]
    inner = slice(3, 5)
    assert torch.allclose(fine[..., ::2, 1::2][..., inner, inner], coarse[..., inner, inner], rtol=1e-3, atol=1e-6)


def test_dense_forms_that_there_are_not():
    vit, resnet = provider.build("tiny-ViT"), provider.build("tiny-RN")
    assert provider.dense(vit, 16) is vit
    for tower, stride, hint in ((vit, 8, "16"), (resnet, 2, "4 or 8 or 16 or 32")):
        with pytest.raises(PxframeError, match=f"no 'output_stride' {stride}; it may be {hint}"):
            provider.dense(tower, stride)


@pytest.mark.parametrize("name", TOWERS)
@pytest.mark.parametrize("scorer", ["px", "snip"])
def test_towers_are_pruned_at_any_size_and_dilated(name, scorer):
    tower = provider.build(name)
    if name == "tiny-RN":
        provider.dense(tower, 8)
    ticket = pxframe.prune(tower, [(images((96, 96)), torch.tensor([0, 1]))], scorer=scorer, rounds=1, sparsity=0.5)
    assert ticket.kept == ticket.total // 2
    assert ticket.masks["conv1.weight"].any()


def quick(tower):
    return any(isinstance(m, QuickGELU) for m in tower.modules())


def test_the_activation_is_the_weights_own(tmp_path):
    source = clip("tiny-ViT").state_dict()
    torch.save(source, tmp_path / "x.pt")
    torch.save(source | {f"{k}": torch.tensor(1) for k in ("input_resolution", "context_length", "vocab_size")},
               tmp_path / "openai.pt")  # fmt: skip
    assert not quick(provider.build("tiny-ViT", checkpoint=tmp_path / "x.pt"))
    assert quick(provider.build("tiny-ViT-quickgelu", checkpoint=tmp_path / "x.pt"))
    assert quick(provider.build("tiny-ViT", checkpoint=tmp_path / "openai.pt"))
    assert not quick(provider.build("tiny-ViT", checkpoint=tmp_path / "openai.pt", quick_gelu=False))


def test_the_tag_decides_on_the_activation(tmp_path, monkeypatch):
    torch.save(clip("tiny-ViT").state_dict(), tmp_path / "x.pt")
    tags = {"a": {"file": str(tmp_path / "x.pt"), "quick_gelu": True}, "b": {"file": str(tmp_path / "x.pt")}}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "tiny-ViT", tags)
    assert quick(provider.build("tiny-ViT", pretrained="a"))
    assert quick(provider.build("tiny-ViT.a"))
    assert not quick(provider.build("tiny-ViT", pretrained="b"))
    assert provider.models("tiny-ViT*") == ["tiny-ViT", "tiny-ViT-quickgelu", "tiny-ViT.a", "tiny-ViT.b"]


def test_models_are_those_that_can_be_built():
    assert {"RN50", "RN50.openai", "ViT-B-32.openai"} <= set(provider.models())
    assert not provider.models("convnext*")  # timm's towers


def test_random_residual_branches_do_not_start_at_zero():
    assert all(block.bn3.weight.any() for block in provider.build("tiny-RN").layer2)


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"model": "RN5"}, ("no model 'RN5'", "'RN50'")),
        ({"model": "RN50", "pretrained": "opanai"}, ("no weights 'opanai'", "'openai'")),
        ({"model": "convnext_base"}, ("timm builds", "model='convnext_base'")),
        ({"model": "tiny-RN", "pretrained": "a", "checkpoint": "x"}, ("exclude",)),
    ],
)
def test_errors(options, parts):
    with pytest.raises(PxframeError) as error:
        provider.build(**options)
    text = str(error.value)
    assert "\n" not in text
    assert all(part in text for part in parts), text


def test_a_file_of_another_tower_is_refused(tmp_path):
    torch.save(clip("tiny-RN").state_dict(), tmp_path / "x.pt")
    with pytest.raises(PxframeError, match=r"does not fit the model: it lacks .*class_embedding"):
        provider.build("tiny-ViT", checkpoint=tmp_path / "x.pt")


def test_pretrained_without_network(tmp_path, monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(PxframeError) as error:
        provider.build("RN50", pretrained="openai")
    text = str(error.value)
    assert "\n" not in text
    for part in ("open_clip_model.safetensors of timm/resnet50_clip.openai", str(tmp_path), "'checkpoint'"):
        assert part in text
