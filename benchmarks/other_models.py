"""Models of torchvision and mmsegmentation, for ``families.py``: each as a function that builds it with a batch.

A name says the library, the kind of model, and torchvision's builder or the file of mmsegmentation's ``_base_/models``.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torchvision
from torch import Tensor, nn

from pxframe.running.inputs import leaves


class Case(NamedTuple):
    """A model with random weights, what it is given, and a loss of its output."""

    model: nn.Module
    inputs: Any
    loss: Callable[[Any, Any], Tensor]


def _squares(output: Any, _: Any) -> Tensor:
    return torch.stack([t.square().mean() for t in leaves(output) if t.is_floating_point()]).sum()


def _torchvision(name: str, *shape: int, **options: Any) -> Case:
    model = torchvision.models.get_model(name, weights=None, **options)
    return Case(model.eval(), torch.randn(2, *(shape or (3, 64, 64))), _squares)


def _detection(name: str, backbone_only: bool = False, **options: Any) -> Case:
    """The losses of two images with two objects each; or the feature maps of the detector's backbone."""
    model = torchvision.models.get_model(name, weights=None, weights_backbone=None, num_classes=5, **options)
    if backbone_only:
        return Case(model.backbone.eval(), torch.randn(2, 3, 64, 64), _squares)
    images = [torch.rand(3, 64, 80) for _ in range(2)]
    boxes = torch.tensor([[4.0, 4.0, 30.0, 40.0], [20.0, 10.0, 60.0, 50.0]])
    objects = {"boxes": boxes, "labels": torch.tensor([1, 3])}
    if "mask" in name:
        objects["masks"] = torch.ones(2, 64, 80, dtype=torch.uint8)
    return Case(model.train(), (images, [objects, objects]), lambda losses, _: torch.stack([*losses.values()]).sum())


def _flow(name: str) -> Case:
    model = torchvision.models.get_model(name, weights=None)
    return Case(model.eval(), tuple(2 * torch.rand(2, 1, 3, 128, 128) - 1), _squares)


def _mmseg(name: str, pixels: int = 64, **backbone: Any) -> Case:
    """A model of mmsegmentation's own config, with BN in the place of SyncBN, which needs several GPUs."""
    from pxframe_tasks.segmentation.openmmlab import import_mmseg

    import_mmseg()
    import mmseg
    from mmengine.config import Config
    from mmengine.registry import DefaultScope
    from mmseg.registry import MODELS

    file = Path(mmseg.__file__).parent / ".mim/configs/_base_/models" / f"{name}.py"
    config = Config.fromstring(file.read_text(encoding="utf-8").replace("SyncBN", "BN"), ".py")
    config.model.backbone.update(backbone)
    with warnings.catch_warnings(), DefaultScope.overwrite_default_scope("mmseg"):
        warnings.simplefilter("ignore")
        model = MODELS.build(config.model)
    return Case(model.eval(), torch.randn(2, 3, pixels, pixels), _squares)


_CLASSIFIERS = (
    *("alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "efficientnet_v2_s", "googlenet", "inception_v3"),
    *("maxvit_t", "mnasnet0_5", "mobilenet_v2", "mobilenet_v3_small", "regnet_x_400mf", "resnet18", "resnext50_32x4d"),
    *("shufflenet_v2_x0_5", "squeezenet1_0", "swin_t", "swin_v2_t", "vgg11", "vit_b_16"),
)
#: Pixels and options of those that need other ones than 64 and none.
_PIXELS: dict[str, int] = {"alexnet": 96, "inception_v3": 96, "squeezenet1_0": 96, "maxvit_t": 224}
_OPTIONS: dict[str, dict[str, Any]] = {
    "googlenet": {"init_weights": False, "aux_logits": False},
    "inception_v3": {"init_weights": False, "aux_logits": False},
    "vit_b_16": {"image_size": 64},
}
_SEGMENTERS = ("deeplabv3_mobilenet_v3_large", "fcn_resnet50", "lraspp_mobilenet_v3_large")
_DETECTORS = {
    "fasterrcnn_mobilenet_v3_large_320_fpn": {"min_size": 64},
    "fcos_resnet50_fpn": {"min_size": 64},
    "maskrcnn_resnet50_fpn": {"min_size": 64},
    "retinanet_resnet50_fpn": {"min_size": 64},
    "ssdlite320_mobilenet_v3_large": {},
}
_VIDEO = {"r3d_18": (3, 8, 64, 64), "r2plus1d_18": (3, 8, 64, 64), "s3d": (3, 14, 224, 224), "swin3d_t": (3, 4, 64, 64)}
_MMSEG: dict[str, dict[str, Any]] = {
    "segformer_mit-b0": {},
    "fcn_unet_s5-d16": {},
    "fcn_hr18": {},
    "bisenetv2": {"pixels": 128},
    "upernet_swin": {"depths": (1, 1, 2, 1)},
    "deeplabv3plus_r50-d8": {},
}

#: Name of each model -> a function that builds its case.
MODELS: dict[str, Callable[[], Case]] = {
    **{
        f"torchvision {name}": partial(_torchvision, name, 3, *[_PIXELS.get(name, 64)] * 2, **_OPTIONS.get(name, {}))
        for name in _CLASSIFIERS
    },
    **{f"torchvision segmentation {name}": partial(_torchvision, name, weights_backbone=None) for name in _SEGMENTERS},
    **{f"torchvision video {name}": partial(_torchvision, name, *shape) for name, shape in _VIDEO.items()},
    **{f"torchvision flow {name}": partial(_flow, name) for name in ("raft_small", "raft_large")},
    **{f"torchvision detection {name}": partial(_detection, name, **more) for name, more in _DETECTORS.items()},
    **{
        f"torchvision detection {name}, backbone": partial(_detection, name, True, **more)
        for name, more in _DETECTORS.items()
    },
    **{f"mmseg {name}": partial(_mmseg, name, **options) for name, options in _MMSEG.items()},
}
