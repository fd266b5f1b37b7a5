"""The models that every method must run on, or refuse: as people use them, and small enough for each test run.

``build(name, full=True)`` gives the published architecture, for the table in ``docs/methods.md``; else the same
classes with fewer layers or channels.
"""

from __future__ import annotations

import warnings

import torch
import torch.nn.functional as F
from torch import nn

import pxframe


def resnet18(full):
    from torchvision.models import resnet, resnet18

    return resnet18() if full else resnet.ResNet(resnet.BasicBlock, [1, 1, 1, 1], num_classes=10)


def vgg16_bn(full):
    from torchvision.models import vgg, vgg16_bn

    if full:
        model = vgg16_bn()
    else:
        layers = vgg.make_layers([16, "M", 32, "M", 64, "M", 64, 64, "M", 64, "M"], batch_norm=True)
        model = vgg.VGG(layers, num_classes=10, init_weights=False)
    # The published classifier, 124 of 138 million weights, is made narrow.
    width = 49 * (512 if full else 64)
    model.classifier = nn.Sequential(nn.Linear(width, 64), nn.ReLU(), nn.Dropout(), nn.Linear(64, 10))
    nn.init.kaiming_normal_(model.classifier[0].weight)
    return model


def resnet50(zero_init_last):
    def make(full):
        import timm
        from timm.models.resnet import Bottleneck, ResNet

        if full:
            return timm.create_model("resnet50", zero_init_last=zero_init_last)
        return ResNet(Bottleneck, [1, 1, 1, 1], base_width=16, zero_init_last=zero_init_last)

    return make


def timm_model(name, small=None, small_options=(), **options):
    def make(full):
        import timm

        return timm.create_model(name if full else small or name, **options, **({} if full else dict(small_options)))

    return make


def clip_rn50(full):
    from open_clip.modified_resnet import ModifiedResNet

    layers, width = ((3, 4, 6, 3), 64) if full else ((1, 1, 1, 1), 16)
    return ModifiedResNet(layers, output_dim=1024, heads=32 * width // 64, image_size=64, width=width)


def clip_vit_b_32(full):
    from open_clip.transformer import VisionTransformer

    return VisionTransformer(64, 32, 768 if full else 192, 12 if full else 2, 12, 4.0, output_dim=512)


class DeepLab(nn.Module):
    """mmsegmentation's, its forward giving the logits ``[N, 21, H / 4, W / 4]``."""

    def __init__(self, full):
        super().__init__()
        from pxframe_tasks.segmentation.openmmlab import import_mmseg

        import_mmseg()
        from mmseg.registry import MODELS

        norm, channels = dict(type="BN"), (2048, 256) if full else (128, 16)
        backbone = dict(
            type="mmseg.ResNetV1c",
            depth=50 if full else 18,
            base_channels=64 if full else 16,
            stem_channels=64 if full else 16,
            dilations=(1, 1, 2, 4),
            strides=(1, 2, 1, 1),
            norm_cfg=norm,
            contract_dilation=True,
        )
        head = dict(
            type="mmseg.DepthwiseSeparableASPPHead",
            in_channels=channels[0],
            in_index=3,
            channels=512 if full else 64,
            dilations=(1, 12, 24, 36),
            c1_in_channels=channels[1],
            c1_channels=48,
            num_classes=21,
            norm_cfg=norm,
            align_corners=False,
        )
        self.net = MODELS.build(dict(type="mmseg.EncoderDecoder", backbone=backbone, decode_head=head))

    def forward(self, x):
        return self.net(x, mode="tensor")


MODELS = {
    "resnet18": resnet18,
    "vgg16_bn": vgg16_bn,
    "resnet50": resnet50(zero_init_last=False),
    "resnet50, zero_init_last": resnet50(zero_init_last=True),
    "convnext_atto": timm_model("convnext_atto", small_options=dict(depths=(1, 1, 2, 1))),
    "vit_tiny": timm_model("vit_tiny_patch16_224", small_options=dict(depth=2), img_size=64),
    "efficientnet_b0": timm_model("efficientnet_b0", small="tinynet_e"),  # an EfficientNet of fewer blocks
    "clip RN50": clip_rn50,
    "clip ViT-B-32": clip_vit_b_32,
    "DeepLabV3+": DeepLab,
}


def build(name, full=False):
    """The model, in training mode, with random weights of seed 0."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return MODELS[name](full).train()


def batches(name, number):
    """``number`` batches of two 64x64 images and their labels (a map of them with an ignored border for DeepLab)."""
    generator = torch.Generator().manual_seed(1)
    pairs = []
    for _ in range(number):
        labels = torch.tensor([1, 2])
        if name == "DeepLabV3+":
            labels = torch.randint(21, (2, 64, 64), generator=generator)
            labels[:, :4] = 255
        pairs.append((torch.randn(2, 3, 64, 64, generator=generator), labels))
    return pairs


def loss(name):
    """None for cross-entropy; DeepLab's is taken at the labels' resolution, 255 ignored."""

    def segmentation(logits, labels):
        logits = F.interpolate(logits, size=labels.shape[-2:], mode="bilinear", align_corners=False)
        return F.cross_entropy(logits, labels, ignore_index=255)

    return segmentation if name == "DeepLabV3+" else None


def trainer(name):
    """Two steps of SGD, for the methods that train."""

    def train(model, ticket, start=0, stop=None):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        ticket.guard(optimizer, model)
        device = next(model.parameters()).device
        for x, y in ((x.to(device), y.to(device)) for x, y in batches(name, 2)[start:stop]):
            value = (loss(name) or F.cross_entropy)(model(x), y)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()

    return train


#: Every registered scorer, some with several options; those that iterate go two rounds for the table in the docs.
METHODS = {
    "random": {},
    "shuffled": dict(of="magnitude"),
    "magnitude": {},
    "lamp": {},
    "snip": {},
    "iter_snip": dict(rounds=2),
    "force": dict(rounds=2),
    "fisher": {},
    "fisher, sampled labels": dict(type="fisher", labels="sampled"),
    "taylor": {},
    "cap": dict(block=8, gradients=2),
    "wanda": {},
    "wanda, relative": dict(type="wanda", relative=True),
    "grasp": {},
    "prospr": dict(steps=1),
    "prospr, first order": dict(type="prospr", steps=1, order="first"),
    "synflow": dict(rounds=2),
    "synflow_l2": dict(rounds=2),
    "logsynflow": dict(rounds=2),
    "ntk_sap": dict(rounds=2),
    "ntk_trace": dict(probes=4),
    "phew": dict(sparsity=0.99),  # it walks for long where much is to be kept
    **{
        f"px {v}": dict(type="px", variant=v, rounds=2)
        for v in ("paper", "calibrated", "joint", "joint_calibrated")  # "official" takes networks of ReLUs only
    },
    "magnitude_after_training": {},
    "imp": dict(rounds=2),
    "ltr": dict(rounds=2, step=1),
}


def prune(method, name, model, full=False):
    """The ticket of ``model`` by a row of :data:`METHODS`, at 50 % unless it says otherwise."""
    options = {"sparsity": 0.5, "type": method, **METHODS[method]}
    sparsity = options.pop("sparsity")
    if not full:
        options["rounds"] = 1
    return pxframe.prune(
        model, batches(name, 2), scorer=options, sparsity=sparsity, loss=loss(name), train=trainer(name)
    )
