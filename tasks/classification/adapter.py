"""Image classification: the backbone, a head on its pooled features, trained or fitted, and accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import pxframe
from pxframe.base.errors import blaming, some
from pxframe.base.options import share
from pxframe.base.undisturbed import seeded


@dataclass(kw_only=True, eq=False)
class Classification(pxframe.TrainedTask):
    """Train and test a classifier.

    Args:
        data: ``dict(train=..., test=...)`` of data sets that give (image, class number), e.g.
            ``dict(type="torchvision.datasets.ImageFolder", root="$PXFRAME_DATA/pets/train", transform=[...])``.
            Types are dotted names; ``transform`` is a list of configs, applied in their order.
        head: config of the module on the pooled features. Trained: ``type`` is ``"Linear"``, ``"MLP"`` (``hidden``, a
            list of widths, and ``dropout``), a name in mmengine's ``MODELS`` or a dotted name; its ``in_features`` or
            ``in_channels``, and ``out_features`` or ``num_classes``, are filled in. Fitted, on a backbone that stays
            as it is: ``"Ridge"`` (``alpha``, a number or a list to choose from on the training set, and ``balanced``)
            or ``"KNN"`` (``k`` and ``temperature``); see ``pxframe_tasks.classification.heads``.
            None keeps the backbone's own classifier, to train a backbone from the start.
        frozen: True: the head alone is trained, on the backbone as it is, norms and their statistics included (with
            ``"Linear"``, a linear probe).
        epochs: of a trained head. A fitted one takes one pass over the training set, its images treated as those of
            the test set; it needs no ``epochs`` and takes no key that says how to train.
        num_classes: of the data; default: as many as the training set's ``classes``.
        label_smoothing: share of the target spread over all classes.
        save_predictions: write ``predictions.json`` into the run's folder when testing.

    The other keys are :class:`pxframe.TrainedTask`'s.
    """

    name, metric = "classification", "accuracy"

    head: Mapping[str, Any] | None = field(default_factory=lambda: {"type": "Linear"})
    frozen: bool = False
    num_classes: int | None = None
    label_smoothing: float = 0.0
    save_predictions: bool = False

    def __post_init__(self, prepare: Mapping[str, Any] | None) -> None:
        super().__post_init__(prepare)
        if self.frozen and self.head is None:
            raise pxframe.PxframeError(f"{self.where}: 'frozen' without a 'head' leaves nothing to train; give a head")
        share(self.where, "label_smoothing", self.label_smoothing)

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
        from pxframe_tasks.classification.model import Images

        return Images(config)

    def export(self, model: nn.Module, classifier: str) -> dict[str, Tensor]:
        """The backbone's weights by its own names, a linear head in its classifier's place; others as ``head.*``."""
        place = classifier if classifier and isinstance(model.head, nn.Linear) else "head"
        return {
            name.removeprefix("backbone.") if name.startswith("backbone.") else name.replace("head", place, 1): value
            for name, value in super().export(model, classifier).items()
        }

    def runner(self, backbone: nn.Module, provider: pxframe.Backbone, *, work_dir: Path, seed: int, **run: Any) -> Any:
        from pxframe_tasks.classification.fitting import FitLoop
        from pxframe_tasks.classification.heads import Fitted, build_head
        from pxframe_tasks.classification.model import Accuracy, Classifier

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
        return pxframe.make_runner(
            model,
            self,
            train=self.dataset("train", transforms_of="test" if fitted else ""),
            test=self.dataset("test"),
            metric=Accuracy(work_dir / "predictions.json" if self.save_predictions else None),
            head=part,
            loop={"type": FitLoop} if fitted else None,
            work_dir=work_dir,
            seed=seed,
            **run,
        )

    def _check_training(self, fitted: bool) -> None:
        """Refuse keys that a fitted head would not read, and miss the one that a trained head needs."""
        if not fitted:
            return
        for key in ("epochs", "optimizer", "schedule", "head_lr_mult", "label_smoothing", "amp"):
            mine = next(f for f in fields(self) if f.name == key)
            default = mine.default if mine.default is not MISSING else mine.default_factory()
            if getattr(self, key) != default:
                raise pxframe.PxframeError(
                    f"{self.where}: the head {self.head['type']!r} is fitted, not trained: leave out {key!r}"
                )


def _few(classes: Sequence[Any]) -> str:
    return f"{len(classes)} ({some(map(str, classes), 3)})"


@pxframe.hookimpl
def pxframe_register(register):
    register.task(Classification)
