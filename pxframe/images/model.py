"""A backbone with a head and a loss as an mmengine model: what most tasks on whole images train."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch.nn.functional as F
from mmengine.model import BaseModel, ImgDataPreprocessor
from torch import Tensor, nn

from pxframe.images.settings import IMAGENET_MEAN, IMAGENET_STD


class ImageModel(BaseModel):
    """``backbone`` and ``head``, trained with ``loss``.

    Args:
        backbone: gives pooled features ``[N, D]``, or the outputs themselves where ``head`` is None.
        head: module from features to outputs, e.g. ``nn.Linear(D, K)``; None for the backbone's own classifier.
        loss: function of outputs and targets; a scalar.
        mean: of the pixel values (0 to 255, RGB), subtracted from every image.
        std: of the pixel values, divided by.
    """

    def __init__(
        self,
        backbone: nn.Module,
        head: nn.Module | None,
        loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        super().__init__(ImgDataPreprocessor(mean, std, non_blocking=True))
        self.backbone = backbone
        self.head = head
        self.loss = loss

    def init_weights(self) -> None:
        """Initialise the head alone: mmengine would call a method of this name in the backbone, and timm's have one."""
        start = getattr(self.head, "init_weights", None)
        if start is not None:
            start()

    def forward(self, inputs: Tensor, data_samples: Tensor | None = None, mode: str = "tensor") -> Any:
        """Outputs of images ``[N, 3, H, W]``; or with targets ``[N, ...]`` the loss, or what a metric reads.

        That is a dict for each image: ``output`` and ``target``, on the CPU.
        """
        outputs = self.backbone(inputs)
        if self.head is not None:
            outputs = self.head(outputs)
        if mode == "tensor":
            return outputs
        assert data_samples is not None
        if mode == "loss":
            return {"loss": self.loss(outputs, data_samples)}
        if mode == "predict":
            pairs = zip(outputs.float().cpu(), data_samples.cpu(), strict=True)
            return [{"output": output, "target": target} for output, target in pairs]
        raise ValueError(f"mmengine's modes are 'tensor', 'loss' and 'predict', got {mode!r}")


def matched(outputs: Tensor, targets: Tensor) -> Tensor:
    """The outputs, ``[N, 1]`` as ``[N]`` where the targets are ``[N]``.

    Else a loss such as the mean squared error would compare every image with every other, without an error.
    """
    one_number = outputs.ndim == targets.ndim + 1 and outputs.shape[-1] == 1
    return outputs.squeeze(-1) if one_number else outputs
