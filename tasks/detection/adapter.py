"""Object detection: the backbone's feature maps, a feature pyramid, one of torchvision's detectors, mean AP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import pxframe
from pxframe.base.errors import blaming
from pxframe.base.options import whole_number
from pxframe.images.settings import SPLITS
from pxframe.running.undisturbed import seeded
from pxframe.training.settings import sgd


class NoLabel:
    """Takes the place of an image's label in scoring batches. An image has boxes, and no scorer's loss takes those."""

    @classmethod
    def __torch_function__(cls, *_: Any, **__: Any) -> Any:
        raise pxframe.PxframeError(
            "images for detection have boxes and no label, which this scorer needs: take a scorer that needs inputs "
            "only, or give a classification task as prune.data"
        )


@dataclass(kw_only=True, eq=False)
class Detection(pxframe.TrainedTask):
    """Train and test a detector.

    Args:
        data: ``dict(train=..., test=...)`` of data sets in Pascal VOC's layout, ``dict(type="VOCBoxes",
            root="$PXFRAME_DATA/VOCdevkit/VOC2012", split="train", classes=[...], transform=[...])``; the keys are those
            of :class:`pxframe_tasks.detection.voc_boxes.VOCBoxes`.
        head: ``dict(type=DETECTOR, **options)``: ``"FasterRCNN"``, ``"RetinaNet"`` or ``"FCOS"``, and options of
            torchvision's class of that name.
        min_size: images are resized so that their shorter side has this many pixels. From a list, training draws one
            of the numbers for each image, and testing uses the last one.
        max_size: the longer side has at most this many pixels.
        fpn: ``dict(maps=[1, 2, 3, 4], out_channels=256, extra="pool")``: the backbone's feature maps that the pyramid
            reads (default: all), the channels of its levels (with FCOS a multiple of 32), and the coarser levels that
            are added: ``"pool"`` (default with Faster R-CNN), ``"p6p7"`` (default with the others) or ``"none"``.
        anchors: ``dict(sizes=[[32], [64]], aspect_ratios=[[0.5, 1, 2], [0.5, 1, 2]])``, one entry for each level,
            sizes in pixels of the resized image; default: torchvision's for the level's stride.
        save_predictions: when testing, write the boxes found to ``predictions.json`` in the run's folder: for each test
            image, in the data's order, ``boxes`` (left, top, right and bottom in pixels), ``labels`` and ``scores``.

    The other keys are those of :class:`pxframe.images.settings.TaskSettings`. Images of a batch may differ in size.
    """

    name, metric, whole = "detection", "mAP", False

    head: Mapping[str, Any] = field(default_factory=lambda: {"type": "FasterRCNN"})
    batch_size: int = 16
    optimizer: Mapping[str, Any] = field(default_factory=lambda: sgd(0.02, weight_decay=1e-4))
    min_size: int | Sequence[int] = 800
    max_size: int = 1333
    fpn: Mapping[str, Any] = field(default_factory=dict)
    anchors: Mapping[str, Any] | None = None
    save_predictions: bool = False

    def __post_init__(self, prepare: Mapping[str, Any] | None) -> None:
        super().__post_init__(prepare)
        small = self.min_size
        sizes = small if isinstance(small, (list, tuple)) else [small]
        for size in sizes:
            whole_number(self.where, "min_size", size)
        whole_number(self.where, "max_size", self.max_size)
        if not sizes or max(sizes) > self.max_size:
            raise pxframe.PxframeError(
                f"{self.where}: 'min_size' must hold at least one number of pixels, and none above 'max_size'; "
                f"got {small!r} and {self.max_size!r}"
            )
        self.view = {"min_size": small, "max_size": self.max_size, "image_mean": self.mean, "image_std": self.std}

    def prepare(self) -> None:
        super().prepare()
        train, test = (self.dataset(split) for split in SPLITS)
        if list(train.classes) != list(test.classes):
            raise pxframe.PxframeError(f"{self.where}: data['train'] and data['test'] must have the same 'classes'")
        for split in SPLITS:
            if not any((~objects.difficult).any() for objects in self.dataset(split).objects):
                raise pxframe.PxframeError(f"{self.where}: data[{split!r}]: no image has an object to find")

    def stack(self, items: list[Any]) -> tuple[Tensor, NoLabel]:
        """Images are resized as in testing, and padded with zeros to one size."""
        from torchvision.models.detection.transform import GeneralizedRCNNTransform

        view = GeneralizedRCNNTransform(**self.view).eval()
        return view([item["inputs"].float() for item in items])[0].tensors, NoLabel()

    def export(self, model: nn.Module, classifier: str) -> dict[str, Tensor]:
        """Weights under torchvision's names: ``backbone.body.*``, ``backbone.fpn.*`` and the detector heads'."""
        state = super().export(model, classifier)
        head = "detection_head."
        return {
            n.removeprefix(head) if n.startswith(head) else n.replace(".", ".body.", 1): v for n, v in state.items()
        }

    def build_dataset(self, config: dict[str, Any], split: str) -> Any:
        from pxframe_tasks.detection.voc_boxes import BOXES, VOCBoxes

        dataset = BOXES.build(config)
        if not isinstance(dataset, VOCBoxes):
            raise pxframe.PxframeError(f"'type' {config['type']!r} is neither 'VOCBoxes' nor a subclass of it")
        return dataset

    def pictures(self, folder: Path, count: int) -> list[pxframe.Picture]:
        """Boxes drawn on the image, of those found the ones with a score of a half or more; see the base class."""
        from pxframe_tasks.detection.pictures import pictures

        if not (folder / "predictions.json").is_file():
            raise pxframe.PxframeError(
                "no predictions were saved; add save_predictions=True to the task, and run the job again with --resume"
            )
        return pictures(self.dataset("test"), folder / "predictions.json", count)

    def runner(self, backbone: nn.Module, provider: pxframe.Backbone, *, work_dir: Path, seed: int, **run: Any) -> Any:
        from pxframe_tasks.detection.model import MeanAP, build_detector

        classes = len(self.dataset("train").classes) + 1  # and the background
        provider.strip(backbone)
        with blaming(f"{self.where}: 'head'"), seeded(seed, torch.device("cpu")):
            model = build_detector(
                backbone, provider, self.head, self.fpn, self.anchors, num_classes=classes, **self.view
            )
        return pxframe.make_runner(
            model,
            self,
            train=self.dataset("train"),
            test=self.dataset("test"),
            metric=MeanAP(work_dir / "predictions.json" if self.save_predictions else None),
            head="detection_head",
            collate="pseudo_collate",
            work_dir=work_dir,
            seed=seed,
            **run,
        )


@pxframe.hookimpl
def pxframe_register(register):
    register.task(Detection)
