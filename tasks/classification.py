"""Image classification: the backbone, a head on its pooled features, trained or fitted, and accuracy."""

from __future__ import annotations

import inspect
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
        head: config of the module on the pooled features. Trained: ``type`` is ``"Linear"``, ``"MLP"`` (``hidden``, a
            list of widths, and ``dropout``), a name in mmengine's ``MODELS`` or a dotted name; its ``in_features`` or
            ``in_channels``, and ``out_features`` or ``num_classes``, are filled in. Fitted, on a backbone that stays
            as it is: ``"Ridge"`` (``alpha``, a number or a list to choose from on the training set, and ``balanced``)
            or ``"KNN"`` (``k`` and ``temperature``); see ``pxframe_tasks.heads``.
            None keeps the backbone's own classifier, to train a backbone from the start.
        frozen: True: the head alone is trained, on the backbone as it is, norms and their statistics included (with
            ``"Linear"``, a linear probe).
        epochs: of a trained head. A fitted one takes one pass over the training set, its images treated as those of
            the test set; it needs no ``epochs`` and takes no key that says how to train.
        num_classes: of the data; default: as many as the training set's ``classes``.
        label_smoothing: share of the target spread over all classes.
        save_predictions: write ``predictions.json`` into the run's folder when testing.

    The other keys are :class:`TrainedTask`'s.
    """

    name, metric = "classification", "accuracy"

    def __init__(
        self,
        *,
        data: Mapping[str, Any],
        epochs: int | None = None,
        batch_size: int = 128,
        head: Mapping[str, Any] | None = {"type": "Linear"},
        frozen: bool = False,
        num_classes: int | None = None,
        label_smoothing: float = 0.0,
        save_predictions: bool = False,
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
        self.head, self.frozen = head, frozen
        if frozen and head is None:
            raise pxframe.PxframeError(f"{self.where}: 'frozen' without a 'head' leaves nothing to train; give a head")
        if not (isinstance(label_smoothing, (int, float)) and 0 <= label_smoothing < 1):
            raise pxframe.PxframeError(f"{self.where}: 'label_smoothing' must be in [0, 1), got {label_smoothing!r}")
        self.num_classes = num_classes
        self.label_smoothing = label_smoothing
        self.save_predictions = save_predictions

    def prepare(self) -> None:
        super().prepare()
        known = max(self.dataset("train").targets or [-1]) + 1
        if self.num_classes is not None and not (type(self.num_classes) is int and self.num_classes >= known):
            raise pxframe.PxframeError(
                f"{self.where}: 'num_classes' is {self.num_classes!r}, and data['train'] has {known} classes"
            )
        train, test = (getattr(self.dataset(split), "classes", None) for split in ("train", "test"))
        if train is not None and test is not None and list(train) != list(test):
            raise pxframe.PxframeError(
                f"{self.where}: data['train'] has the classes {_few(train)} and data['test'] {_few(test)}; "
                f"they must be the same, in the same order"
            )

    def labels(self, dataset: Any) -> Sequence[Any] | None:
        return dataset.targets

    def stack(self, items: list[Any]) -> tuple[Tensor, Tensor]:
        mean, std = (torch.tensor(v, dtype=torch.float32).view(3, 1, 1) for v in (self.mean, self.std))
        images = torch.stack([item["inputs"].float() for item in items])
        return (images - mean) / std, torch.tensor([item["data_samples"] for item in items])

    def build_dataset(self, config: dict[str, Any], split: str) -> Any:
        from pxframe_tasks.classifier import Images

        return Images(config)

    def export(self, model: nn.Module, classifier: str) -> dict[str, Tensor]:
        """The backbone's weights by its own names, a linear head in its classifier's place; others as ``head.*``."""
        place = classifier if classifier and isinstance(model.head, nn.Linear) else "head"
        return {
            name.removeprefix("backbone.") if name.startswith("backbone.") else name.replace("head", place, 1): value
            for name, value in super().export(model, classifier).items()
        }

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
        from pxframe_tasks.classifier import Accuracy, Classifier
        from pxframe_tasks.fitting import FitLoop
        from pxframe_tasks.heads import Fitted, build_head

        classes = self.num_classes or len(self.dataset("train").classes or ())
        if not classes:
            raise pxframe.PxframeError(f"{self.where}: data['train'] does not say its classes; set 'num_classes'")
        if self.head is None and not provider.classifier(backbone):
            raise pxframe.PxframeError(f"{self.where}: the backbone has no classifier of its own; give a 'head'")
        head, part = None, f"backbone.{provider.classifier(backbone)}"
        if self.head is not None:
            images, part = len(self.dataset("train")), "head"
            with blaming(f"{self.where}: 'head'"), seeded(seed, torch.device("cpu")):
                head = build_head(self.head, provider.strip(backbone), classes, images)
        fitted = isinstance(head, Fitted)
        self._check_training(fitted)
        model = Classifier(backbone, head, self.label_smoothing, self.mean, self.std, self.frozen or fitted)
        return self.make_runner(
            model,
            Accuracy(work_dir / "predictions.json" if self.save_predictions else None),
            part,
            loop={"type": FitLoop} if fitted else None,
            work_dir=work_dir,
            device=device,
            seed=seed,
            resume=resume,
            hooks=hooks,
            log_level=log_level,
        )

    def _check_training(self, fitted: bool) -> None:
        """Refuse keys that a fitted head would not read, and miss the one that a trained head needs."""
        if not fitted:
            if self.epochs is None:
                raise pxframe.PxframeError(f"{self.where} needs the option 'epochs', or a head that is fitted")
            return
        parameters = inspect.signature(type(self)).parameters
        for key in ("epochs", "optimizer", "schedule", "head_lr_mult", "label_smoothing", "amp"):
            if getattr(self, key) != parameters[key].default:
                raise pxframe.PxframeError(
                    f"{self.where}: the head {self.head['type']!r} is fitted, not trained: leave out {key!r}"
                )


def _few(classes: Sequence[Any]) -> str:
    return f"{len(classes)} ({some(map(str, classes), 3)})"


@pxframe.hookimpl
def pxframe_register(register):
    register.task(Classification)
