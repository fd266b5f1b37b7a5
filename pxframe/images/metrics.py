"""A torchmetrics metric as mmengine's evaluator wants it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.evaluator import BaseMetric
from torch import Tensor
from torchmetrics import Metric

from pxframe.base.errors import PxframeError
from pxframe.files.writing import write_json
from pxframe.images.model import matched


class TorchMetric(BaseMetric):
    """One number from the outputs and targets of all test images, computed by a torchmetrics metric.

    It reads what :class:`pxframe.ImageModel` predicts: a dict with ``output`` and ``target`` for each image. Outputs
    ``[N, 1]`` lose their last axis where the targets are ``[N]``.

    Args:
        metric: e.g. ``torchmetrics.MeanAbsoluteError()``.
        name: of the number in what ``test()`` returns.
        factor: the number is multiplied by it: 100 shows a share in percent.
        file: where to write the lists ``target`` and ``output`` as JSON; default: nowhere.
    """

    default_prefix = ""  # with None, mmengine warns

    def __init__(self, metric: Metric, name: str, factor: float = 1.0, file: Path | None = None) -> None:
        super().__init__()
        self.metric, self.name, self.factor, self.file = metric, name, factor, file

    def process(self, data_batch: Any, data_samples: Sequence[Mapping[str, Tensor]]) -> None:
        self.results.extend((sample["output"], sample["target"]) for sample in data_samples)

    def compute_metrics(self, results: list[tuple[Tensor, Tensor]]) -> dict[str, float]:
        outputs, targets = (torch.stack(part) for part in zip(*results, strict=True))
        outputs = matched(outputs, targets)
        if self.file is not None:
            write_json(self.file, {"target": targets.tolist(), "output": outputs.tolist()})
        self.metric.reset()
        self.metric.sync_on_compute = False  # rank 0 has the results of all, and must not wait for the others
        value = self.metric(outputs, targets)
        if not (isinstance(value, Tensor) and value.numel() == 1):
            raise PxframeError(
                f"the metric {type(self.metric).__name__} gives more than one number; choose an 'average' or "
                f"another option that makes it one"
            )
        return {self.name: self.factor * float(value)}
