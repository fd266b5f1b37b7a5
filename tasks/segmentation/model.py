"""The parts of semantic segmentation that need mmseg: data set, model, metric."""

from __future__ import annotations

import inspect
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import resize

import pxframe
from pxframe.base.errors import some, within
from pxframe.files.paths import locate
from pxframe_tasks.segmentation.openmmlab import import_mmseg

import_mmseg()

from mmengine.config import ConfigDict  # noqa: E402 (mmseg first, with its warnings silenced)
from mmengine.dataset import pseudo_collate  # noqa: E402
from mmengine.registry import DefaultScope  # noqa: E402
from mmseg.evaluation import IoUMetric  # noqa: E402
from mmseg.models import EncoderDecoder, SegDataPreProcessor  # noqa: E402
from mmseg.registry import DATASETS, MODELS  # noqa: E402


class FeatureMaps(nn.Module):
    """A backbone with mmseg's interface: it gives a tuple of the feature maps at ``indices``.

    It has no ``init_weights``, so mmengine leaves the weights inside as they are.
    """

    def __init__(self, model: nn.Module, provider: pxframe.Backbone, indices: Sequence[int]) -> None:
        super().__init__()
        self.model = model
        self.provider = provider
        self.indices = indices

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        maps = self.provider.features(self.model, x)
        return tuple(maps[i] for i in self.indices)


class MeanIoU(IoUMetric):
    """mmseg's metric: the mean over classes of intersection over union, in percent.

    Pixels whose label is ``ignore_index`` do not count.

    Args:
        output_dir: folder to write the predicted labels to; default: nowhere.
        options: of mmseg's class.
    """

    default_prefix = ""  # with None, mmengine warns

    def __init__(self, output_dir: str | None = None, **options: Any) -> None:
        super().__init__(output_dir=output_dir, **options)
        if output_dir is not None:  # every process writes what it predicts, and mmseg makes the folder in the first
            Path(output_dir).mkdir(parents=True, exist_ok=True)

    def compute_metrics(self, results: list) -> dict[str, float]:
        # mmseg gives NumPy's float32, rounded to two places, which cannot be written as JSON
        return {key: round(float(value), 2) for key, value in super().compute_metrics(results).items()}


def build_dataset(config: dict[str, Any]) -> Any:
    """Build an mmseg data set, after checking that its folders and lists exist: mmseg's own errors do not name them."""
    with DefaultScope.overwrite_default_scope("mmseg"):
        return DATASETS.build(_checked(config))


def _checked(config: dict[str, Any]) -> dict[str, Any]:
    """``config`` with its roots located. In a config of several data sets, each gets the common pipeline."""
    if "datasets" in config:
        config, parts = dict(config), []
        pipeline = config.pop("pipeline", [])
        for number, part in enumerate(config["datasets"]):
            with within(f"datasets[{number}]"):
                if "pipeline" in part:
                    raise pxframe.PxframeError("'pipeline' is written once, beside 'datasets', for all of them")
                parts.append(_checked({**part, "pipeline": pipeline}))
        return {**config, "datasets": parts}
    root = Path()
    if config.get("data_root"):
        root = locate(config["data_root"])
        config = {**config, "data_root": str(root)}
    named = [*(config.get("data_prefix") or {}).items(), ("ann_file", config.get("ann_file"))]
    for key, value in named:
        if value and not (root / value).exists():
            raise pxframe.PxframeError(f"{key!r}: there is no {root / value}")
    return config


def labelled(items: list[dict[str, Any]], classes: int, ignore_index: int) -> Any:
    """One batch for mmseg's models, after a look at its labels: on a GPU, a wrong one ends the whole process.

    Raises:
        PxframeError: a label is neither a class number nor ``ignore_index``.
    """
    for item in items:
        sample = item["data_samples"]
        if "gt_sem_seg" not in sample:
            continue
        label = sample.gt_sem_seg.data
        wrong = label[((label < 0) | (label >= classes)) & (label != ignore_index)]
        if len(wrong):
            raise pxframe.PxframeError(
                f"{sample.get('seg_map_path', 'a label map')} has the label {int(wrong[0])}; labels must be from 0 to "
                f"{classes - 1}, as there are {classes} classes, or {ignore_index} ('ignore_index')"
            )
    return pseudo_collate(items)


def check_stems(dataset: Any) -> None:
    """Refuse test images with the same file name, where predictions are to be named after them."""
    stems = Counter(Path(dataset.get_data_info(i)["img_path"]).stem for i in range(len(dataset)))
    twice = [stem for stem, count in stems.items() if count > 1]
    if twice:
        raise pxframe.PxframeError(f"two test images have the name {some(twice)}; rename one")


def preprocessor(
    mean: Sequence[float], std: Sequence[float], size_divisor: int, ignore_index: int
) -> SegDataPreProcessor:
    """The module that stacks, pads and normalises images, which mmseg reads as BGR, in training and in testing."""
    test = {"size_divisor": size_divisor} if size_divisor > 1 else None
    options: dict[str, Any] = {"size_divisor": size_divisor, "seg_pad_val": ignore_index, "test_cfg": test}
    made = SegDataPreProcessor(mean=mean, std=std, bgr_to_rgb=True, **options)
    made._non_blocking = True  # it does not take the argument of mmengine's class that it derives from
    return made


def stacked(preprocessor: SegDataPreProcessor, items: list[dict[str, Any]]) -> tuple[Tensor, Tensor]:
    """Images ``[N, 3, H, W]`` and labels ``[N, H, W]`` of items of the data set, preprocessed as in training."""
    for item in items:
        sample, size = item["data_samples"], item["inputs"].shape[-2:]
        label = sample.gt_sem_seg.data
        if label.shape[-2:] != size:  # a test pipeline may leave the label at full resolution
            del sample.gt_sem_seg.data
            sample.gt_sem_seg.data = resize(label, size, InterpolationMode.NEAREST)
    batch = preprocessor(pseudo_collate(items), training=True)
    return batch["inputs"], torch.stack([sample.gt_sem_seg.data[0] for sample in batch["data_samples"]])


def build_segmentor(
    backbone: nn.Module,
    provider: pxframe.Backbone,
    indices: Sequence[int] | None,
    head: dict[str, Any],
    classes: int,
    preprocessor: SegDataPreProcessor,
) -> EncoderDecoder:
    """Build an mmseg model that predicts whole images: ``head`` on the feature maps of ``backbone`` at ``indices``."""
    with DefaultScope.overwrite_default_scope("mmseg"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="mmseg")  # on its own deprecated calls
        channels = provider.channels(backbone)
        indices = range(len(channels)) if indices is None else indices
        for i in indices:
            if not -len(channels) <= i < len(channels):
                raise pxframe.PxframeError(f"'out_indices' {i}: the backbone gives {len(channels)} feature maps")
        _fill(head, [channels[i] for i in indices], classes)
        return EncoderDecoder(
            backbone={"type": FeatureMaps, "model": backbone, "provider": provider, "indices": indices},
            decode_head=head,
            train_cfg=ConfigDict(),
            test_cfg=ConfigDict(mode="whole"),
            data_preprocessor=preprocessor,
        )


def _fill(head: dict[str, Any], channels: list[int], classes: int) -> None:
    """Add the options that the backbone and the data determine, where the config leaves them out."""
    kind = head.get("type")
    cls = MODELS.get(kind) if isinstance(kind, str) else kind
    if not inspect.isclass(cls):
        raise KeyError(f"'type' {kind!r} is no decode head in mmseg")
    if (given := head.get("num_classes", classes)) < classes:
        raise pxframe.PxframeError(
            f"'num_classes' is {given}, and the data have {classes} classes; leave it out: it is filled in"
        )
    index = head.get("in_index", -1)
    many = isinstance(index, (list, tuple))
    for i in index if many else [index]:
        if not -len(channels) <= i < len(channels):
            raise IndexError(f"'in_index' {i}: the head is given {len(channels)} feature maps")
    head.setdefault("in_channels", [channels[i] for i in index] if many else channels[index])
    head.setdefault("num_classes", classes)
    if "c1_in_channels" in inspect.signature(cls).parameters:
        head.setdefault("c1_in_channels", channels[0])
