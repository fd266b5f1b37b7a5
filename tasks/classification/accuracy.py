"""The default metric of classification."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.evaluator import BaseMetric
from torch import Tensor

from pxframe.files.writing import write_json


class Accuracy(BaseMetric):
    """Share of images whose class is predicted, in percent.

    Args:
        file: where to write the lists ``label`` and ``predicted`` as JSON; default: nowhere.
    """

    default_prefix = ""  # with None, mmengine warns

    def __init__(self, file: Path | None = None) -> None:
        super().__init__()
        self.file = file

    def process(self, data_batch: Any, data_samples: Sequence[Mapping[str, Tensor]]) -> None:
        """Take the class numbers ``target`` and the logits ``output`` ``[K]`` of a batch of images."""
        predicted = torch.stack([sample["output"] for sample in data_samples]).argmax(1).tolist()
        self.results.extend(zip((int(s["target"]) for s in data_samples), predicted, strict=True))

    def compute_metrics(self, results: list) -> dict[str, float]:
        if self.file is not None:
            labels, predicted = zip(*results, strict=True)
            write_json(self.file, {"label": labels, "predicted": predicted})
        return {"accuracy": 100 * sum(label == predicted for label, predicted in results) / len(results)}
