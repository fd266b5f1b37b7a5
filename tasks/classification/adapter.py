"""Image classification, and regression or several labels an image: a head on the backbone's pooled features."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, InitVar, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import pxframe
from pxframe.base.errors import blaming, some
from pxframe.base.options import share, whole_number
from pxframe.images.settings import SPLITS
from pxframe.running.undisturbed import evaluating, seeded


@dataclass(kw_only=True, eq=False)
class Classification(pxframe.TrainedTask):
    """Train and test a network on whole images: one class an image, or with a loss of one's own any target.

    Args:
        data: ``dict(train=..., test=...)`` of data sets that give (image, class number), e.g.
            ``dict(type="torchvision.datasets.ImageFolder", root="$PXFRAME_DATA/pets/train", transform=[...])``.
            Types are dotted names. ``transform`` is a list of configs, applied in their order; images must stay
            uint8. ``samples`` keeps that many images. With a ``loss`` of one's own, a target may also be a number or
            a vector.
        head: config of the module on the pooled features. Trained heads: ``"Linear"``; ``"MLP"`` with ``hidden``, a
            list of widths, and ``dropout``; a name in mmengine's ``MODELS``; or a dotted name. ``in_features`` or
            ``in_channels``, and ``out_features`` or ``num_classes``, are filled in. Fitted heads, on a backbone that
            is not trained: ``"Ridge"`` with ``alpha``, a number or a list to choose from on the training set, and
            ``balanced``; ``"KNN"`` with ``k`` and ``temperature``; see ``pxframe_tasks.classification.heads``.
            None keeps the backbone's own classifier, to train a backbone from the start.
        epochs: passes over the training set, for a trained head. A fitted head takes one pass, over training images
            with the transforms of the test set; it takes no ``epochs`` and no other key of training.
        num_classes: number of outputs; default: the number of the training set's ``classes``.
        label_smoothing: share of the target that is spread over all classes, in the default loss.
        loss: a dotted name such as ``"torch.nn.MSELoss"``, a name in mmengine's ``MODELS``, or
            ``dict(type=NAME, **options)``: a class or a function of outputs ``[N, num_classes]`` and targets. Scorers
            use it, too. Default: cross-entropy.
        metric: ``dict(type="torchmetrics.MeanSquaredError", squared=False, name="RMSE", higher_is_better=False,
            unit="px")``: a torchmetrics class, which is given the outputs and the targets, or an mmengine metric.
            ``name`` is the metric's name in results (of an mmengine metric: the key of the number to compare by),
            ``unit`` its unit (a share is shown in percent if the unit is ``"%"``). ``higher_is_better`` is the
            torchmetrics class's own unless it is given. Default: accuracy in percent.
        save_predictions: write ``predictions.json`` into the run's folder when testing.

    The other keys are those of :class:`pxframe.images.settings.TaskSettings`.
    """

    name = "classification"

    head: Mapping[str, Any] | None = field(default_factory=lambda: {"type": "Linear"})
    num_classes: int | None = None
    label_smoothing: float = 0.0
    save_predictions: bool = False
    # As config keys, these two are configs; on the task, they are the function and the name that `Task` describes.
    loss: InitVar[Mapping[str, Any] | str | None] = None
    metric: InitVar[Mapping[str, Any] | str | None] = None

    def __post_init__(self, prepare: Mapping[str, Any] | None, loss: Any, metric: Any) -> None:
        super().__post_init__(prepare)
        if self.frozen and self.head is None:
            raise pxframe.PxframeError(f"{self.where}: 'frozen' without a 'head' leaves nothing to train; give a head")
        share(self.where, "label_smoothing", self.label_smoothing)
        if self.num_classes is not None:
            whole_number(self.where, "num_classes", self.num_classes)
        self._own_loss, self._measure = loss is not None, None
        self.loss, self.metric = F.cross_entropy, "accuracy"
        if loss is not None:
            from pxframe_tasks.classification.objective import build_loss

            if self.label_smoothing:
                raise pxframe.PxframeError(
                    f"{self.where}: 'label_smoothing' is an option of the default loss; write it into 'loss'"
                )
            if metric is None:
                raise pxframe.PxframeError(f"{self.where}: a 'loss' of your own needs a 'metric' of your own")
            with blaming(f"{self.where}: 'loss'"):
                self.loss = build_loss(loss)
        if metric is not None:
            from pxframe_tasks.classification.objective import build_measure

            with blaming(f"{self.where}: 'metric'"):
                self._measure = build_measure(metric)
            self.metric, self.unit = self._measure.name, self._measure.unit
            self.higher_is_better = self._measure.higher_is_better

    def prepare(self) -> None:
        super().prepare()
        for split in SPLITS:
            self._check_targets(split)
        train, test = (self.dataset(split).classes for split in SPLITS)
        if train is not None and test is not None and list(train) != list(test):
            raise pxframe.PxframeError(
                f"{self.where}: data['train'] has the classes {_few(train)} and data['test'] {_few(test)}; "
                f"they must be the same, in the same order"
            )

    def check_item(self, item: Any) -> None:
        target = item["data_samples"]
        if not self._own_loss and (target.ndim or target.is_floating_point()):
            raise pxframe.PxframeError(
                f"the first target is {target.tolist()}, which is no class number; for such targets give 'loss', "
                f"'metric' and 'num_classes'"
            )

    def rehearse(self, runner: Any) -> None:
        if not self._own_loss:
            self._check_outputs(runner)
        super().rehearse(runner)

    @property
    def own_classifier(self) -> bool:
        return self.head is None

    def export(self, model: nn.Module, classifier: str) -> dict[str, Tensor]:
        """The weights by the backbone's own names, a linear head's as its classifier's; other heads' as ``head.*``."""
        place = classifier if classifier and isinstance(model.head, nn.Linear) else "head"
        return {
            name.removeprefix("backbone.") if name.startswith("backbone.") else name.replace("head", place, 1): value
            for name, value in super().export(model, classifier).items()
        }

    def runner(self, backbone: nn.Module, provider: pxframe.Backbone, *, work_dir: Path, seed: int, **run: Any) -> Any:
        from pxframe_tasks.classification.accuracy import Accuracy
        from pxframe_tasks.classification.fitting import FitLoop
        from pxframe_tasks.classification.heads import Fitted, build_head

        outputs = self._outputs()
        if self.head is None and not provider.classifier(backbone):
            raise pxframe.PxframeError(f"{self.where}: the backbone has no classifier of its own; give a 'head'")
        head, part = None, f"backbone.{provider.classifier(backbone)}"
        if self.head is not None:
            images, part = len(self.dataset("train")), "head"
            with blaming(f"{self.where}: 'head'"), seeded(seed, torch.device("cpu")):
                head = build_head(self.head, provider.strip(backbone), outputs, images)
        fitted = isinstance(head, Fitted)
        self._check_training(fitted)
        loss = functools.partial(self.loss, label_smoothing=self.label_smoothing) if not self._own_loss else self.loss
        file = work_dir / "predictions.json" if self.save_predictions else None
        with blaming(f"{self.where}: 'metric'"):
            metric = self._measure.build(file) if self._measure else Accuracy(file)
        return pxframe.make_runner(
            pxframe.ImageModel(backbone, head, loss, self.mean, self.std),
            self,
            train=self.dataset("train", transforms_of="test" if fitted else ""),
            test=self.dataset("test"),
            metric=metric,
            head=part,
            loop={"type": FitLoop} if fitted else None,
            work_dir=work_dir,
            seed=seed,
            **run,
        )

    def _outputs(self) -> int:
        count = self.num_classes or len(self.dataset("train").classes or ())
        if not count:
            raise pxframe.PxframeError(f"{self.where}: data['train'] does not say its classes; set 'num_classes'")
        return count

    def _check_targets(self, split: str) -> None:
        """Refuse class numbers that no output stands for."""
        targets = self.dataset(split).targets
        if self._own_loss or not targets:
            return
        least, most, count = min(targets), max(targets), self._outputs()
        if least < 0 or most >= count:
            raise pxframe.PxframeError(
                f"{self.where}: data[{split!r}] has class numbers from {least} to {most}; they must be from 0 to "
                f"{count - 1}, as there are {count} classes ({'num_classes' if self.num_classes else 'its classes'!r})"
            )

    def _check_outputs(self, runner: Any) -> None:
        """Refuse a head with fewer outputs than classes: on a GPU, such a loss ends the whole process."""
        from pxframe.images.rehearsal import first_batch

        model, count = runner.model, self._outputs()
        with torch.no_grad(), evaluating(model), blaming(f"{self.where}: 'head'"):
            batch = model.data_preprocessor(first_batch(runner.test_dataloader))
            shape = list(model(batch["inputs"]).shape)
        if len(shape) != 2 or shape[1] < count:
            whose = "the backbone's own classifier" if self.head is None else "the head"
            raise pxframe.PxframeError(
                f"{self.where}: {whose} gives outputs {shape} for {len(batch['inputs'])} images, and there are {count} "
                f"classes: it must give [N, {count}]; check its 'num_classes'"
            )

    def _check_training(self, fitted: bool) -> None:
        """Refuse keys that a fitted head does not read."""
        if not fitted:
            return
        given = ["loss"] if self._own_loss else []
        for key in ("epochs", "optimizer", "schedule", "head_lr_mult", "label_smoothing", "amp"):
            mine = next(f for f in fields(self) if f.name == key)
            default = mine.default if mine.default is not MISSING else mine.default_factory()
            if getattr(self, key) != default:
                given.append(key)
        if given:
            raise pxframe.PxframeError(
                f"{self.where}: the head {self.head['type']!r} is fitted, not trained: leave out {given[0]!r}"
            )


def _few(classes: Sequence[Any]) -> str:
    return f"{len(classes)} ({some(map(str, classes), 3)})"


@pxframe.hookimpl
def pxframe_register(register):
    register.task(Classification)
