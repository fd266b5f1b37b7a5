"""The parts of semantic segmentation that need mmseg: data set, model, metric."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

import pxframe
from pxframe_tasks.openmmlab import import_mmseg

import_mmseg()

from mmengine.config import ConfigDict  # noqa: E402 (mmseg first, with its warnings silenced)
from mmengine.registry import DefaultScope  # noqa: E402
from mmseg.evaluation import IoUMetric  # noqa: E402
from mmseg.models import EncoderDecoder, SegDataPreProcessor  # noqa: E402
from mmseg.registry import DATASETS, MODELS  # noqa: E402


class FeatureMaps(nn.Module):
    """A backbone as mmseg wants it: images in, a tuple of feature maps out.

    It has no ``init_weights``, so mmengine leaves the weights inside as they are.
    """

    def __init__(self, model: nn.Module, provider: pxframe.Backbone) -> None:
        super().__init__()
        self.model = model
        self.provider = provider

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.provider.features(self.model, x))


class MeanIoU(IoUMetric):
    """mmseg's metric: mean over classes of intersection over union, in percent, where the label is not 255."""

    default_prefix = ""  # with None, mmengine warns

    def compute_metrics(self, results: list) -> dict[str, float]:
        # mmseg gives NumPy's float32, rounded to two places, which JSON does not take
        return {key: round(float(value), 2) for key, value in super().compute_metrics(results).items()}


def build_dataset(config: dict[str, Any]) -> Any:
    """An mmseg data set. The folders and the list it names must be there: mmseg's own checks do not name them."""
    root = Path(config.get("data_root") or "")
    named = [*(config.get("data_prefix") or {}).items(), ("ann_file", config.get("ann_file"))]
    for key, value in named:
        if value and not (root / value).exists():
            raise pxframe.PxframeError(f"{key!r}: there is no {root / value}")
    with DefaultScope.overwrite_default_scope("mmseg"):
        return DATASETS.build(config)


def build_segmentor(
    backbone: nn.Module,
    provider: pxframe.Backbone,
    head: dict[str, Any],
    classes: int,
    mean: Sequence[float],
    std: Sequence[float],
) -> EncoderDecoder:
    """``head`` on the feature maps of ``backbone``, as an mmseg model that predicts whole images."""
    with DefaultScope.overwrite_default_scope("mmseg"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="mmseg")  # on its own deprecated calls
        _fill(head, provider.channels(backbone), classes)
        return EncoderDecoder(
            backbone={"type": FeatureMaps, "model": backbone, "provider": provider},
            decode_head=head,
            train_cfg=ConfigDict(),
            test_cfg=ConfigDict(mode="whole"),
            data_preprocessor=SegDataPreProcessor(
                # mmseg reads images as BGR; of size and size_divisor it wants one
                mean=mean,
                std=std,
                bgr_to_rgb=True,
                size_divisor=1,
                seg_pad_val=head["ignore_index"],
            ),
        )


def _fill(head: dict[str, Any], channels: list[int], classes: int) -> None:
    """Add what the backbone and the data determine, where the config leaves it out."""
    kind = head.get("type")
    cls = MODELS.get(kind) if isinstance(kind, str) else kind
    if not inspect.isclass(cls):
        raise KeyError(f"'type' {kind!r} is no decode head in mmseg")
    index = head.get("in_index", -1)
    many = isinstance(index, (list, tuple))
    for i in index if many else [index]:
        if not -len(channels) <= i < len(channels):
            raise IndexError(f"'in_index' {i}: the backbone gives {len(channels)} feature maps")
    head.setdefault("in_channels", [channels[i] for i in index] if many else channels[index])
    head.setdefault("num_classes", classes)
    if "c1_in_channels" in inspect.signature(cls).parameters:
        head.setdefault("c1_in_channels", channels[0])
