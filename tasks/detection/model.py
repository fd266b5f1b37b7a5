"""The parts of object detection that need mmengine, torchvision and torchmetrics: model and metric."""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseDataPreprocessor, BaseModel
from torch import Tensor, nn
from torchmetrics.detection import MeanAveragePrecision
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

import pxframe
from pxframe.base.errors import PxframeError, near
from pxframe.files.writing import write_json
from pxframe.running.undisturbed import evaluating

#: Name of each detector, and the levels it has beyond the backbone's maps where the config does not say.
DETECTORS = {"FasterRCNN": (FasterRCNN, "pool"), "RetinaNet": (RetinaNet, "p6p7"), "FCOS": (FCOS, "p6p7")}
_EXTRA = {"none": 0, "pool": 1, "p6p7": 2}
_PROBE = 128  # pixels; finds strides up to this


class Pyramid(nn.Module):
    """A feature pyramid (Lin et al. 2017, arXiv 1612.03144) on feature maps of a backbone, for torchvision's detectors.

    Args:
        maps: indices of the feature maps that the pyramid reads; default: all.
        out_channels: channels of every level.
        extra: coarser levels to add: ``"pool"`` (one, by taking every second pixel), ``"p6p7"`` (two, by
            convolutions) or ``"none"``.

    Attributes:
        strides: pixels of the image to one of the map, for every level.
        names: names of the levels that stand on a feature map of the backbone.
    """

    def __init__(
        self,
        backbone: nn.Module,
        provider: pxframe.Backbone,
        *,
        maps: Sequence[int] | None = None,
        out_channels: int = 256,
        extra: str,
    ) -> None:
        super().__init__()
        self._source = (backbone, provider)  # in a tuple: the backbone's parameters are the detector's, once
        channels = provider.channels(backbone)
        self.maps = list(range(len(channels)) if maps is None else maps)
        if not self.maps or any(not -len(channels) <= i < len(channels) for i in self.maps):
            raise IndexError(f"'maps' {self.maps}: the backbone gives {len(channels)} feature maps")
        if extra not in _EXTRA:
            raise PxframeError(f"'extra' {extra!r} is no kind of levels{near(extra, _EXTRA)}")
        blocks = {"pool": LastLevelMaxPool, "p6p7": lambda: LastLevelP6P7(out_channels, out_channels)}
        more = blocks[extra]() if extra in blocks else None
        self.out_channels = out_channels
        self.fpn = FeaturePyramidNetwork([channels[i] for i in self.maps], out_channels, more)
        self.names = [str(i) for i in range(len(self.maps))]
        device = next(backbone.parameters()).device
        with torch.no_grad(), evaluating(backbone):
            sizes = [m.shape[-1] for m in self._maps(torch.zeros(1, 3, _PROBE, _PROBE, device=device))]
        self.strides = [_PROBE // size for size in sizes]
        if sorted(set(self.strides)) != self.strides:
            raise PxframeError(f"'maps' {self.maps} have strides {self.strides}; a pyramid needs rising ones")
        self.strides += [self.strides[-1] * 2 ** (i + 1) for i in range(_EXTRA[extra])]

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return single(self.fpn(OrderedDict(zip(self.names, self._maps(x), strict=True))))

    def _maps(self, x: Tensor) -> list[Tensor]:
        backbone, provider = self._source
        found = provider.features(backbone, x)
        return [found[i] for i in self.maps]


def single(output: Any) -> Any:
    """Convert every tensor in ``output`` to float32.

    Torchvision computes anchors and boxes in the type of the feature maps and of the heads' outputs. In bfloat16, as
    under mixed precision, a box 1000 pixels from the edge would be off by up to 2 pixels.
    """
    if isinstance(output, Tensor):
        return output.float()
    if isinstance(output, Mapping):
        return OrderedDict((key, single(value)) for key, value in output.items())
    return type(output)(map(single, output))


def _single_output(module: nn.Module, inputs: Any, output: Any) -> Any:
    return single(output)


class Detector(BaseModel):
    """``backbone``, and one of torchvision's detectors on its feature maps."""

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__(
            BaseDataPreprocessor(non_blocking=True)
        )  # moves a batch to the device; detectors normalise by themselves
        self.backbone = backbone
        self.detection_head = head
        for part in (head.rpn.head, head.roi_heads.box_predictor) if isinstance(head, FasterRCNN) else (head.head,):
            part.register_forward_hook(_single_output)

    def init_weights(self) -> None:
        """Change nothing: mmengine would call a method of this name in the backbone, and timm's models have one."""

    def forward(
        self,
        inputs: Sequence[Tensor] | Tensor,
        data_samples: Mapping[str, Sequence[Tensor]] | None = None,
        mode: str = "tensor",
    ) -> Any:
        """The losses of uint8 images ``[3, H, W]`` of any sizes, or a dict ``found`` and ``truth`` for each image.

        Of normalised images ``[N, 3, H, W]`` alone, the maps of the pyramid, which is all that can be slimmed.
        """
        if data_samples is None and isinstance(inputs, Tensor):
            return self.detection_head.backbone(inputs)
        if data_samples is None:
            raise PxframeError(
                "a detector is no function of a tensor, and cannot be pruned as a whole; prune its backbone"
            )
        truths = [dict(zip(data_samples, values, strict=True)) for values in zip(*data_samples.values(), strict=True)]
        found = self.detection_head([image.float() for image in inputs], truths if mode == "loss" else None)
        if mode == "loss":
            # mmengine adds up entries with "loss" in their name; RetinaNet's and FCOS's names lack it
            return {name if "loss" in name else f"loss_{name}": value for name, value in found.items()}
        return [{"found": f, "truth": t} for f, t in zip(found, truths, strict=True)]


class MeanAP(BaseMetric):
    """COCO's mean average precision, in percent: over classes and over IoU 0.50, 0.55, ..., 0.95; also at 0.50, 0.75.

    Objects marked ``iscrowd`` are ignored.

    Args:
        file: where to write the boxes found, as JSON; default: nowhere.
    """

    default_prefix = ""  # with None, mmengine warns

    def __init__(self, file: Path | None = None) -> None:
        super().__init__()
        self.file = file

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        self.results.extend(data_samples)

    def compute_metrics(self, results: list) -> dict[str, float]:
        if self.file is not None:
            found = [{key: value.tolist() for key, value in r["found"].items()} for r in results]
            write_json(self.file, {"found": found})
        # The first of several processes has the results of all, and alone computes: it must not wait for the others.
        metric = MeanAveragePrecision(box_format="xyxy", iou_type="bbox", sync_on_compute=False)
        metric.warn_on_many_detections = False  # COCO counts the first 100 of an image; RetinaNet gives 300
        metric.update([r["found"] for r in results], [r["truth"] for r in results])
        values = metric.compute()
        keys = {"mAP": "map", "mAP50": "map_50", "mAP75": "map_75"}
        return {name: 100 * float(values[key]) for name, key in keys.items()}


def build_detector(
    backbone: nn.Module,
    provider: pxframe.Backbone,
    head: Mapping[str, Any],
    fpn: Mapping[str, Any],
    anchors: Mapping[str, Any] | None,
    **options: Any,
) -> Detector:
    """Build the detector that ``head`` describes.

    ``options`` are torchvision's: ``num_classes``, ``min_size``, ``max_size``, ``image_mean`` and ``image_std``.
    """
    head = dict(head)
    kind = head.pop("type", None)
    if kind not in DETECTORS:
        raise PxframeError(f"'type' {kind!r} is no detector of torchvision here{near(str(kind), DETECTORS)}")
    cls, extra = DETECTORS[kind]
    known = {n for n, p in inspect.signature(cls).parameters.items() if isinstance(p.default, (int, float))} - {
        *options
    }
    for key in head:
        if key not in known:  # torchvision accepts any name and ignores the unknown ones
            raise PxframeError(f"{kind} takes no option {key!r}{near(key, known)}")
    pyramid = Pyramid(backbone, provider, **{"extra": extra, **fpn})
    generator = build_anchors(kind, pyramid.strides, anchors)
    if cls is FasterRCNN:
        head["rpn_anchor_generator"] = generator
        head["box_roi_pool"] = MultiScaleRoIAlign(pyramid.names, output_size=7, sampling_ratio=2)
    else:
        head["anchor_generator"] = generator
    return Detector(backbone, cls(pyramid, **head, **options))


def build_anchors(kind: str, strides: Sequence[int], config: Mapping[str, Any] | None) -> AnchorGenerator:
    """Anchors for every level: those of ``config``, or torchvision's own choice for the level's stride."""
    if config is not None:
        generator = AnchorGenerator(**config)
        if not len(generator.sizes) == len(generator.aspect_ratios) == len(strides):
            raise PxframeError(
                f"'anchors' are given for {len(generator.sizes)} levels ('sizes') and {len(generator.aspect_ratios)} "
                f"('aspect_ratios'); there are {len(strides)}, of strides {', '.join(map(str, strides))}"
            )
        return generator
    sizes = {
        "FasterRCNN": lambda s: (8 * s,),
        "RetinaNet": lambda s: tuple(int(4 * s * 2 ** (i / 3)) for i in range(3)),
        "FCOS": lambda s: (s,),
    }
    ratios = (1.0,) if kind == "FCOS" else (0.5, 1.0, 2.0)
    return AnchorGenerator(tuple(map(sizes[kind], strides)), (ratios,) * len(strides))
