"""Semantic segmentation: the backbone's feature maps, any of mmseg's decode heads, mean IoU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import pxframe
from pxframe_tasks.training import IMAGENET_MEAN, IMAGENET_STD, TrainedTask

SGD = {"type": "SGD", "lr": 0.01, "momentum": 0.9, "weight_decay": 5e-4}


class Segmentation(TrainedTask):
    """Train and test a segmentor.

    Args:
        data: ``dict(train=..., test=...)`` of mmseg's data sets, e.g. ``dict(type="PascalVOCDataset",
            data_root="$PXFRAME_DATA/VOC2012", ann_file="ImageSets/Segmentation/train.txt", data_prefix=dict(
            img_path="JPEGImages", seg_map_path="SegmentationClass"), pipeline=[...])``. For other classes than Pascal
            VOC's in that layout: ``BaseSegDataset`` with ``metainfo=dict(classes=[...])``.
        head: config of any decode head in mmseg. ``in_channels``, ``c1_in_channels`` and ``num_classes`` are filled in
            where they are left out. ``in_index`` counts the backbone's feature maps.
        ignore_index: label that counts neither in the loss nor in the score.
        test_batch_size: images a step when testing; above 1 they must be of one size.

    The other keys are :class:`TrainedTask`'s.
    """

    name, metric = "segmentation", "mIoU"
    root_key = "data_root"
    transform_key = "pipeline"

    def __init__(
        self,
        *,
        data: Mapping[str, Any],
        head: Mapping[str, Any],
        epochs: int,
        batch_size: int = 16,
        ignore_index: int = 255,
        test_batch_size: int = 1,
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
        self.head = head
        self.ignore_index = ignore_index
        self.test_batch_size = test_batch_size

    def sample(self, item: Any) -> tuple[Tensor, Any]:
        return item["inputs"].flip(0), item["data_samples"].gt_sem_seg.data[0]  # mmseg reads BGR

    def build_dataset(self, config: dict[str, Any], split: str) -> Any:
        from pxframe_tasks.segmentor import build_dataset

        return build_dataset(config)

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
        from pxframe_tasks.segmentor import MeanIoU, build_segmentor

        classes = self.dataset("train").metainfo.get("classes") or ()
        provider.strip(backbone)
        with blaming(f"{self.where}: 'head'"), seeded(seed, torch.device("cpu")):
            head = {"ignore_index": self.ignore_index, **self.head}
            model = build_segmentor(backbone, provider, head, len(classes), self.mean, self.std)
        return self.make_runner(
            model,
            MeanIoU(ignore_index=self.ignore_index),
            "decode_head",
            collate="pseudo_collate",
            scope="mmseg",
            test_batch_size=self.test_batch_size,
            work_dir=work_dir,
            device=device,
            seed=seed,
            resume=resume,
            hooks=hooks,
            log_level=log_level,
        )


@pxframe.hookimpl
def pxframe_register(register):
    register.task(Segmentation)
