"""VGG16-BN and ResNet-18 for small images: sizes, stages, initialisation."""

import math

import pytest
import torch
from torch import nn

from pxframe.base.errors import PxframeError
from pxframe_plugins.resnet18 import ResNet18
from pxframe_plugins.vgg16_bn import VGG16BN

vgg, resnet = VGG16BN(), ResNet18()


@pytest.mark.parametrize(
    ("provider", "convolutions", "parameters"),
    [
        # sum of 9 in out + out (bias) + 2 out (batch norm) over the 13 convolutions, and 512 * 10 + 10
        (vgg, 13, sum(c * (9 * b + 3) for b, c in zip(
            (3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512),
            (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512),
            strict=True,
        )) + 5130),
        (resnet, 20, 11_173_962),  # the 11.17 million of its forms for CIFAR-10
    ],
)  # fmt: skip
def test_sizes(provider, convolutions, parameters):
    model = provider.build()
    assert sum(isinstance(m, nn.Conv2d) for m in model.modules()) == convolutions
    assert sum(p.numel() for p in model.parameters()) == parameters


@pytest.mark.parametrize(("provider", "options"), [(vgg, {"width": 32}), (resnet, {})])
def test_weights_are_kaiming_normal_and_no_norm_starts_at_zero(provider, options):
    torch.manual_seed(0)
    model = provider.build(num_classes=100, **options)
    for name, module in model.named_modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            w = module.weight
            expected = math.sqrt(2 / w[0].numel())
            assert w.std().item() == pytest.approx(expected, rel=4 / math.sqrt(2 * w.numel())), name  # 4 sigma
            assert abs(w.mean().item()) < 4 * expected / math.sqrt(w.numel()), name
        elif isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all(), name
    assert all((p == 0).all() for n, p in model.named_parameters() if n.startswith("features") and n.endswith("bias"))


@pytest.mark.parametrize(
    ("provider", "options", "size", "shapes"),
    [
        (vgg, {"width": 4}, 32, [(4, 32), (8, 16), (16, 8), (32, 4), (32, 2)]),
        (vgg, {"width": 4}, 64, [(4, 64), (8, 32), (16, 16), (32, 8), (32, 4)]),
        (resnet, {}, 32, [(64, 32), (128, 16), (256, 8), (512, 4)]),
        (resnet, {"stem_stride": 2}, 64, [(64, 32), (128, 16), (256, 8), (512, 4)]),
    ],
)
def test_a_map_per_stage(provider, options, size, shapes):
    model = provider.build(num_classes=3, **options).eval()
    x = torch.rand(1, 3, size, size)
    with torch.no_grad():
        maps = provider.features(model, x)
        logits = model(x)
    assert [tuple(m.shape) for m in maps] == [(1, c, s, s) for c, s in shapes]
    assert provider.channels(model) == [c for c, _ in shapes]
    classifier = model.get_submodule(provider.classifier(model))
    assert torch.allclose(logits, classifier(maps[-1].mean((2, 3))), atol=1e-5)


@pytest.mark.parametrize(("provider", "options"), [(vgg, {"width": 4}), (resnet, {})])
def test_checkpoint(provider, options, tmp_path):
    source = provider.build(**options).state_dict()
    torch.save({"state_dict": {f"module.{n}": t for n, t in source.items()}}, tmp_path / "x.pth")
    loaded = provider.build(**options, checkpoint=tmp_path / "x.pth").state_dict()
    assert all(torch.equal(loaded[n], t) for n, t in source.items())


@pytest.mark.parametrize(("provider", "options"), [(vgg, {"width": 0}), (resnet, {"stem_stride": 4})])
def test_bad_options(provider, options):
    with pytest.raises(PxframeError, match=next(iter(options))):
        provider.build(**options)
