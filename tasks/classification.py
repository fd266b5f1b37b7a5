"""Image classification: the backbone, a head on its pooled features, cross-entropy, accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import pxframe
from pxframe.errors import some
from pxframe_tasks.training import IMAGENET_MEAN, IMAGENET_STD, TrainedTask

SGD = {"type": "SGD", "lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4}


class Classification(TrainedTask):
    """Train and test a classifier.

    Args:
        data: ``dict(train=..., test=...)`` of data sets that give (image, class number), e.g.
            ``dict(type="torchvision.datasets.ImageFolder", root="$PXFRAME_DATA/pets/train", transform=[...])``.
            Types are dotted names; ``transform`` is a list of configs, applied in their order.
        head: config of the module on the pooled features; ``type`` is ``"Linear"``, a name in mmengine's ``MODELS`` or
            a dotted name. Its ``in_features`` or ``in_channels``, and ``out_features`` or ``num_classes``, are filled
            in.
            None keeps the backbone's own classifier, to train a backbone from the start.
        num_classes: of the data; default: as many as the training set's ``classes``.
        label_smoothing: share of the target spread over all classes.

    The other keys are :class:`TrainedTask`'s.
    """

    name, metric = "classification", "accuracy"

    def __init__(
        self,
        *,
        data: Mapping[str, Any],
        epochs: int,
        batch_size: int = 128,
        head: Mapping[str, Any] | None = {"type": "Linear"},
        num_classes: int | None = None,
        label_smoothing: float = 0.0,
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
        self.num_classes = num_classes
        self.label_smoothing = label_smoothing

    def prepare(self) -> None:
        super().prepare()
        train, test = (getattr(self.dataset(split), "classes", None) for split in ("train", "test"))
        if train is not None and test is not None and list(train) != list(test):
            raise pxframe.PxframeError(
                f"{self.where}: data['train'] has the classes {_few(train)} and data['test'] {_few(test)}; "
                f"they must be the same, in the same order"
            )

    def labels(self, dataset: Any) -> Sequence[Any] | None:
        return getattr(dataset.samples, "targets", None)

    def sample(self, item: Any) -> tuple[Tensor, Any]:
        return item["inputs"], item["data_samples"]

    def build_dataset(self, config: dict[str, Any], split: str) -> Any:
        from pxframe_tasks.classifier import Images

        return Images(config)

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
        from pxframe_tasks.classifier import Accuracy, Classifier, build_head

        classes = self.num_classes or len(self.dataset("train").classes or ())
        if not classes:
            raise pxframe.PxframeError(f"{self.where}: data['train'] does not say its classes; set 'num_classes'")
        head, part = None, f"backbone.{provider.classifier(backbone)}"
        if self.head is not None:
            with blaming(f"{self.where}: 'head'"), seeded(seed, torch.device("cpu")):
                head, part = build_head(dict(self.head), provider.strip(backbone), classes), "head"
        model = Classifier(backbone, head, self.label_smoothing, self.mean, self.std)
        return self.make_runner(
            model,
            Accuracy(),
            part,
            work_dir=work_dir,
            device=device,
            seed=seed,
            resume=resume,
            hooks=hooks,
            log_level=log_level,
        )


def _few(classes: Sequence[Any]) -> str:
    return f"{len(classes)} ({some(map(str, classes), 3)})"


@pxframe.hookimpl
def pxframe_register(register):
    register.task(Classification)
