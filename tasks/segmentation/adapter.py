"""Semantic segmentation: the backbone's feature maps, any of mmseg's decode heads, mean IoU."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import pxframe
from pxframe.base.errors import blaming, within
from pxframe.base.options import one_of, whole_number
from pxframe.running.undisturbed import seeded
from pxframe.training.settings import sgd


@dataclass(kw_only=True, eq=False)
class Segmentation(pxframe.TrainedTask):
    """Train and test a segmentor.

    Args:
        data: ``dict(train=..., test=...)`` of mmseg's data sets, e.g. ``dict(type="PascalVOCDataset",
            data_root="$PXFRAME_DATA/VOC2012", ann_file="ImageSets/Segmentation/train.txt", data_prefix=dict(
            img_path="JPEGImages", seg_map_path="SegmentationClass"), pipeline=[...])``. For other classes than Pascal
            VOC's in that layout: ``BaseSegDataset`` with ``metainfo=dict(classes=[...])``, and ``img_suffix`` and
            ``seg_map_suffix`` where files end otherwise than in ``.jpg`` and ``.png``. Several lists in one:
            ``dict(type="ConcatDataset", datasets=[...], pipeline=[...])``; the pipeline is each one's.
        head: config of any decode head in mmseg. ``in_channels``, ``c1_in_channels`` and ``num_classes`` are filled in
            where they are left out. ``in_index`` counts the feature maps that ``out_indices`` chooses.
        out_indices: the feature maps of the backbone that the head reads, in this order; default: all. The first map
            of timm's ResNets is their stem's; ``(-4, -3, -2, -1)`` are the maps that mmseg's heads are made for.
        output_stride: 8, 16 or 32: height and width of the image divided by those of the coarsest map. Later
            convolutions are dilated instead of strided. Default: the backbone's own.
        size_divisor: images are padded at the right and at the bottom to a multiple of this number of pixels, such as
            a ViT's patch size. The padding counts neither in the loss nor in the score.
        ignore_index: pixels with this label count neither in the loss nor in the score.
        test_batch_size: images a step when testing; above 1, the images must be of one size.
        save_predictions: when testing, write the predicted labels at full resolution to ``predictions/STEM.png`` in the
            run's folder; STEM is the stem of the image's file name.

    The other keys are those of :class:`pxframe.images.settings.TaskSettings`.
    """

    name, metric = "segmentation", "mIoU"
    root_key = "data_root"
    transform_key = "pipeline"
    packages = ("mmsegmentation",)

    head: Mapping[str, Any]
    batch_size: int = 16
    optimizer: Mapping[str, Any] = field(default_factory=lambda: sgd(0.01))
    out_indices: Sequence[int] | None = None
    output_stride: int | None = None
    size_divisor: int = 1
    ignore_index: int = 255
    test_batch_size: int = 1
    save_predictions: bool = False

    def __post_init__(self, prepare: Mapping[str, Any] | None) -> None:
        super().__post_init__(prepare)
        one_of(self.where, "output_stride", self.output_stride, (None, 8, 16, 32))
        whole_number(self.where, "size_divisor", self.size_divisor)
        whole_number(self.where, "test_batch_size", self.test_batch_size)
        if not isinstance(self.head, Mapping):
            raise pxframe.PxframeError(f"{self.where}: 'head' must be a dict(type=...), got {self.head!r}")
        self.head = {"ignore_index": self.ignore_index, **self.head}

    def prepare(self) -> None:
        super().prepare()
        if not self._classes():
            raise pxframe.PxframeError(f"{self.where}: data['train'] has no classes; give metainfo=dict(classes=[...])")

    def check_item(self, item: Any) -> None:
        from pxframe.images.dataset import check_bytes

        if not isinstance(item, Mapping) or "inputs" not in item:
            raise pxframe.PxframeError("'pipeline' gives no 'inputs'; it must end in dict(type='PackSegInputs')")
        check_bytes(item["inputs"])

    def stack(self, items: list[Any]) -> tuple[Tensor, Tensor]:
        """Images of different sizes are padded to one size, as in training, and so are their labels."""
        from pxframe_tasks.segmentation.model import stacked

        return stacked(self._preprocessor(), items)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy, a mean over pixels, of logits ``[N, K, h, w]`` and labels ``[N, H, W]``.

        The logits are resized to the labels' size as the head resizes them.
        """
        logits = F.interpolate(output, target.shape[-2:], mode="bilinear", align_corners=self._align_corners)
        return F.cross_entropy(logits, target, ignore_index=self.head["ignore_index"])

    def export(self, model: nn.Module, classifier: str) -> dict[str, Tensor]:
        """Weights under the names of mmseg's ``EncoderDecoder``: ``backbone.*`` and ``decode_head.*``.

        mmseg's ``ResNet`` loads the weights of timm's. If the last stages are dilated, it needs
        ``contract_dilation=True`` and computes the same in ResNet-50 and deeper; in ResNet-18 and 34 it dilates other
        convolutions than timm.
        """
        state = super().export(model, classifier)
        return {name.replace("backbone.model.", "backbone.", 1): value for name, value in state.items()}

    def build_dataset(self, config: dict[str, Any], split: str) -> Any:
        from pxframe_tasks.segmentation.model import build_dataset

        return build_dataset(config)

    def runner(self, backbone: nn.Module, provider: pxframe.Backbone, *, work_dir: Path, seed: int, **run: Any) -> Any:
        from pxframe_tasks.segmentation.model import MeanIoU, build_segmentor, check_stems, labelled

        classes = len(self._classes())
        predictions = None
        if self.save_predictions:
            predictions = work_dir / "predictions"
            with within(f"{self.where}: 'save_predictions'"):
                check_stems(self.dataset("test"))
        provider.strip(backbone)
        provider.dense(backbone, self.output_stride)
        with blaming(f"{self.where}: 'head'"), seeded(seed, torch.device("cpu")):
            model = build_segmentor(
                backbone, provider, self.out_indices, dict(self.head), classes, self._preprocessor()
            )
        return pxframe.make_runner(
            model,
            self,
            train=self.dataset("train"),
            test=self.dataset("test"),
            metric=MeanIoU(ignore_index=self.ignore_index, output_dir=predictions),
            head="decode_head",
            collate=functools.partial(labelled, classes=classes, ignore_index=self.ignore_index),
            scope="mmseg",
            test_batch_size=self.test_batch_size,
            work_dir=work_dir,
            seed=seed,
            **run,
        )

    def pictures(self, folder: Path, count: int) -> list[pxframe.Picture]:
        """The labels in the classes' colours; see :meth:`pxframe.Task.pictures`."""
        from pxframe_tasks.segmentation.pictures import pictures

        if not (folder / "predictions").is_dir():
            raise pxframe.PxframeError(
                "no predictions were saved; add save_predictions=True to the task, and run the job again with --resume"
            )
        return pictures(self.dataset("test"), folder / "predictions", count, self.ignore_index)

    def _classes(self) -> Sequence[str]:
        return self.dataset("train").metainfo.get("classes") or ()

    @property
    def _align_corners(self) -> bool:
        return self.head.get("align_corners", False)

    def _preprocessor(self) -> Any:
        from pxframe_tasks.segmentation.model import preprocessor

        return preprocessor(self.mean, self.std, self.size_divisor, self.head["ignore_index"])


@pxframe.hookimpl
def pxframe_register(register):
    register.task(Segmentation)
