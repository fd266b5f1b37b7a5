"""The parts of image classification that need mmengine and torchvision: data set, model, metric."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch.nn.functional as F
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel, ImgDataPreprocessor
from mmengine.registry import DATASETS, MODELS, TRANSFORMS, Registry
from sklearn.metrics import accuracy_score
from torch import Tensor, nn
from torch.utils.data import Dataset
from torchvision.transforms.v2 import Compose
from torchvision.transforms.v2.functional import pil_to_tensor

HEADS = Registry("head", parent=MODELS, scope="pxframe")
HEADS.register_module(name="Linear", module=nn.Linear)


class Images(Dataset):
    """A data set of (image, class number) as dicts ``inputs`` (uint8 ``[3, H, W]``) and ``data_samples`` (the number).

    Images stay in bytes until they are on the model's device.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        options = dict(config)
        transform = options.pop("transform", [])
        self.transform = Compose([TRANSFORMS.build(dict(t)) for t in transform]) if transform else None
        self.samples = DATASETS.build(options)
        self.classes = getattr(self.samples, "classes", None)
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
    """``backbone`` and ``head``, or a backbone with its own classifier where ``head`` is None."""

    def __init__(
        self,
        backbone: nn.Module,
        head: nn.Module | None,
        label_smoothing: float,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        super().__init__(ImgDataPreprocessor(mean, std))
        self.backbone = backbone
        self.head = head
        self.label_smoothing = label_smoothing

    def init_weights(self) -> None:
        """Initialise the head alone: mmengine would call a method of this name in the backbone, and timm's have one."""
        start = getattr(self.head, "init_weights", None)
        if start is not None:
            start()

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
    """Share of images whose class is the one predicted, in percent."""

    default_prefix = ""  # with None, mmengine warns

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        self.results.extend((s["label"], s["predicted"]) for s in data_samples)

    def compute_metrics(self, results: list) -> dict[str, float]:
        labels, predicted = zip(*results, strict=True)
        return {"accuracy": 100 * float(accuracy_score(labels, predicted))}


def build_head(config: dict[str, Any], features: int, classes: int) -> nn.Module:
    """The module that ``config`` describes, from ``features`` inputs to ``classes`` outputs."""
    kind = config.pop("type", None)
    cls = HEADS.get(kind) if isinstance(kind, str) else kind
    if not callable(cls):
        raise KeyError(f"'type' {kind!r} is neither 'Linear' nor a name in mmengine's MODELS nor a dotted name")
    takes = inspect.signature(cls).parameters
    for key in ("in_features", "in_channels"):
        if key in takes:
            config.setdefault(key, features)
    for key in ("out_features", "num_classes"):
        if key in takes:
            config.setdefault(key, classes)
    return cls(**config)
