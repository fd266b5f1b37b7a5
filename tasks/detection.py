"""Object detection: the backbone's feature maps, a feature pyramid, one of torchvision's detectors, mean AP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import pxframe
from pxframe_tasks.training import IMAGENET_MEAN, IMAGENET_STD, SPLITS, TrainedTask

SGD = {"type": "SGD", "lr": 0.02, "momentum": 0.9, "weight_decay": 1e-4}


class NoLabel:
    """What stands where an image's label would: an image has boxes, and a loss on their labels cannot be taken."""

    @classmethod
    def __torch_function__(cls, *_: Any, **__: Any) -> Any:
        raise pxframe.PxframeError(
            "images for detection have boxes and no label, which this scorer needs: take a scorer that needs inputs "
            "only, or give a classification task as prune.data"
        )


class Detection(TrainedTask):
    """Train and test a detector.

    Args:
        data: ``dict(train=..., test=...)`` of data sets in Pascal VOC's layout, ``dict(type="VOCBoxes",
            root="$PXFRAME_DATA/VOCdevkit/VOC2012", split="train", classes=[...], transform=[...])``; the keys are those
            of :class:`pxframe_tasks.voc_boxes.VOCBoxes`.
        head: ``dict(type=DETECTOR, **options)``: ``"FasterRCNN"``, ``"RetinaNet"`` or ``"FCOS"``, and options of
            torchvision's class of that name.
        min_size: what the shorter side of an image is resized to, in pixels; a list to draw from in training, whose
            last entry is for testing.
        max_size: what the longer side does not exceed.
        fpn: ``dict(maps=[1, 2, 3, 4], out_channels=256, extra="pool")``: which of the backbone's feature maps the
            pyramid stands on (default: all), its channels (with FCOS a multiple of 32), and levels beyond: ``"pool"``
            (default with Faster R-CNN), ``"p6p7"`` (with the others) or ``"none"``.
        anchors: ``dict(sizes=[[32], [64]], aspect_ratios=[[0.5, 1, 2], [0.5, 1, 2]])``, an entry a level, sizes in
            pixels of the resized image; default: torchvision's for the level's stride.

    The other keys are :class:`TrainedTask`'s. Images of a batch may differ in size.
    """

    name, metric, whole = "detection", "mAP", False

    def __init__(
        self,
        *,
        data: Mapping[str, Any],
        head: Mapping[str, Any] = {"type": "FasterRCNN"},
        epochs: int,
        batch_size: int = 16,
        min_size: int | Sequence[int] = 800,
        max_size: int = 1333,
        fpn: Mapping[str, Any] | None = None,
        anchors: Mapping[str, Any] | None = None,
        optimizer: Mapping[str, Any] = SGD,
        schedule: Sequence[Mapping[str, Any]] | None = None,
        head_lr_mult: float = 1.0,
        num_workers: int = 0,
        amp: str | None = None,
        prepare: Mapping[str, Any] | None = None,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        super().__init__(
            data=data,
            epochs=epochs,
            batch_size=batch_size,
            optimizer=optimizer,
            schedule=schedule,
            head_lr_mult=head_lr_mult,
            num_workers=num_workers,
            amp=amp,
            prepare=prepare,
            mean=mean,
            std=std,
        )
        sizes = [*(min_size if isinstance(min_size, (list, tuple)) else [min_size]), max_size]
        if len(sizes) < 2 or not all(isinstance(s, int) and 0 < s <= max_size for s in sizes):
            raise pxframe.PxframeError(
                f"{self.where}: 'min_size' and 'max_size' must be whole numbers of pixels, the second one the larger, "
                f"got {min_size!r} and {max_size!r}"
            )
        self.head = head
        self.fpn = fpn or {}
        self.anchors = anchors
        self.view = {"min_size": min_size, "max_size": max_size, "image_mean": self.mean, "image_std": self.std}

    def prepare(self) -> None:
        super().prepare()
        train, test = (self.dataset(split) for split in SPLITS)
        if list(train.classes) != list(test.classes):
            raise pxframe.PxframeError(f"{self.where}: data['train'] and data['test'] must have the same 'classes'")
        for split in SPLITS:
            if not any((~objects.difficult).any() for objects in self.dataset(split).objects):
                raise pxframe.PxframeError(f"{self.where}: data[{split!r}]: no image has an object to find")

    def stack(self, items: list[Any]) -> tuple[Tensor, NoLabel]:
        """Images are resized, and padded with zeros to one size, as in testing."""
        from torchvision.models.detection.transform import GeneralizedRCNNTransform

        view = GeneralizedRCNNTransform(**self.view).eval()
        return view([item["inputs"].float() for item in items])[0].tensors, NoLabel()

    def export(self, model: nn.Module, classifier: str) -> dict[str, Tensor]:
        """Weights as torchvision's detectors name them: ``backbone.body.*``, ``backbone.fpn.*`` and the heads'."""
        state = super().export(model, classifier)
        head = "detection_head."
        return {
            n.removeprefix(head) if n.startswith(head) else n.replace(".", ".body.", 1): v for n, v in state.items()
        }

    def build_dataset(self, config: dict[str, Any], split: str) -> Any:
        from pxframe_tasks.voc_boxes import BOXES, VOCBoxes

        dataset = BOXES.build(config)
        if not isinstance(dataset, VOCBoxes):
            raise pxframe.PxframeError(f"'type' {config['type']!r} is neither 'VOCBoxes' nor a subclass of it")
        return dataset

    def runner(
        self,
        backbone: nn.Module,
        provider: pxframe.Backbone,
        *,
        work_dir: Path,
        device: str,
        seed: int,
        resume: bool,
        hooks: Sequence[Any] = (),
        log_level: str = "WARNING",
    ) -> Any:
        from pxframe.preserve import seeded
        from pxframe.runner import blaming
        from pxframe_tasks.detector import MeanAP, build_detector

        classes = len(self.dataset("train").classes) + 1  # and the background
        provider.strip(backbone)
        with blaming(f"{self.where}: 'head'"), seeded(seed, torch.device("cpu")):
            model = build_detector(
                backbone, provider, self.head, self.fpn, self.anchors, num_classes=classes, **self.view
            )
        return self.make_runner(
            model,
            MeanAP(),
            "detection_head",
            collate="pseudo_collate",
            work_dir=work_dir,
            device=device,
            seed=seed,
            resume=resume,
            hooks=hooks,
            log_level=log_level,
        )


@pxframe.hookimpl
def pxframe_register(register):
    register.task(Detection)
