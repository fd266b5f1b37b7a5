"""The parts of image classification that need mmengine and torchvision: data set, model, metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel, ImgDataPreprocessor
from mmengine.registry import DATASETS, TRANSFORMS
from sklearn.metrics import accuracy_score
from torch import Tensor, nn
from torch.utils.data import Dataset, Subset
from torchvision.transforms.v2 import Compose
from torchvision.transforms.v2.functional import pil_to_tensor

from pxframe.base.files import write_json
from pxframe.training.drawing import drawn


class Images(Dataset):
    """A data set of (image, class number) as dicts ``inputs`` (uint8 ``[3, H, W]``) and ``data_samples`` (the number).

    Images stay in bytes until they are on the model's device. ``samples=N`` in the config keeps N images, drawn evenly
    over the classes and always the same.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        options = dict(config)
        transform, samples = options.pop("transform", []), options.pop("samples", None)
        self.transform = Compose([TRANSFORMS.build(dict(t)) for t in transform]) if transform else None
        self.samples = DATASETS.build(options)
        self.classes = getattr(self.samples, "classes", None)
        self.targets = getattr(self.samples, "targets", None)
        if samples is not None:
            chosen = sorted(drawn(len(self.samples), samples, self.targets, seed=0))
            self.targets = self.targets and [self.targets[i] for i in chosen]
            self.samples = Subset(self.samples, chosen)
        self.metainfo = {"classes": self.classes}

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        image, label = self.samples[index]
        if self.transform is not None:
            image = self.transform(image)
        if not isinstance(image, Tensor):
            image = pil_to_tensor(image.convert("RGB"))
        return {"inputs": image, "data_samples": label}


class Classifier(BaseModel):
    """``backbone`` and ``head``, or a backbone with its own classifier where ``head`` is None.

    A ``frozen`` backbone takes no gradients, and is in evaluation mode also while the head trains, so that neither its
    weights nor its running statistics change.
    """

    def __init__(
        self,
        backbone: nn.Module,
        head: nn.Module | None,
        label_smoothing: float,
        mean: Sequence[float],
        std: Sequence[float],
        frozen: bool = False,
    ) -> None:
        super().__init__(ImgDataPreprocessor(mean, std))
        self.backbone = backbone.requires_grad_(False) if frozen else backbone
        self.frozen = frozen
        self.head = head
        self.label_smoothing = label_smoothing

    def init_weights(self) -> None:
        """Initialise the head alone: mmengine would call a method of this name in the backbone, and timm's have one."""
        start = getattr(self.head, "init_weights", None)
        if start is not None:
            start()

    def train(self, mode: bool = True) -> Classifier:
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self

    def forward(self, inputs: Tensor, data_samples: Tensor | None = None, mode: str = "tensor") -> Any:
        """Logits ``[N, K]`` of images ``[N, 3, H, W]``; with labels ``[N]``, the loss or what the metric reads."""
        logits = self.backbone(inputs)
        if self.head is not None:
            logits = self.head(logits)
        if mode == "loss":
            return {"loss": F.cross_entropy(logits, data_samples, label_smoothing=self.label_smoothing)}
        if mode == "predict":
            pairs = zip(data_samples.tolist(), logits.argmax(1).tolist(), strict=True)
            return [{"label": label, "predicted": predicted} for label, predicted in pairs]
        return logits


class Accuracy(BaseMetric):
    """Share of images whose class is the one predicted, in percent.

    Args:
        file: where to write what was predicted, as JSON with the lists ``label`` and ``predicted``; default: nowhere.
    """

    default_prefix = ""  # with None, mmengine warns

    def __init__(self, file: Path | None = None) -> None:
        super().__init__()
        self.file = file

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        self.results.extend((s["label"], s["predicted"]) for s in data_samples)

    def compute_metrics(self, results: list) -> dict[str, float]:
        labels, predicted = zip(*results, strict=True)
        if self.file is not None:
            write_json(self.file, {"label": labels, "predicted": predicted})
        return {"accuracy": 100 * float(accuracy_score(labels, predicted))}
