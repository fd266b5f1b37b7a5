"""ResNet-18 for small images, as in the papers on pruning at initialisation."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

import pxframe
from pxframe.plugin.checkpoint import load_checkpoint
from pxframe_plugins.cifar_resnet import kaiming_normal


class ResNet18(pxframe.Backbone):
    """torchvision's ResNet-18 (He et al., arXiv 1512.03385) with a 3x3 stem and no max-pooling, for images of 32x32.

    The last batch norm of a residual branch does not start at zero, because weights of a branch whose output is zero
    have no saliency.
    """

    name = "resnet18"

    def build(self, num_classes: int = 10, stem_stride: int = 1, checkpoint: str | None = None) -> nn.Module:
        """Build the network.

        Args:
            num_classes: number of outputs of ``fc``.
            stem_stride: stride of the first convolution. Choose 1 for images of 32x32, and 2 for images of 64x64
                (Tiny-ImageNet), which then cost as much as those of 32x32.
            checkpoint: a file with all weights. Without one, weights are drawn (Kaiming normal, fan in).

        Raises:
            PxframeError: the stride is neither 1 nor 2, or the checkpoint does not fit.
        """
        from torchvision.models import resnet18

        if stem_stride not in (1, 2):
            raise pxframe.PxframeError(f"backbone {self.name!r}: 'stem_stride' must be 1 or 2, got {stem_stride!r}")
        model = resnet18(num_classes=num_classes)
        model.conv1 = nn.Conv2d(3, 64, 3, stem_stride, padding=1, bias=False)
        model.maxpool = nn.Identity()
        kaiming_normal(model)
        if checkpoint is not None:
            load_checkpoint(model, checkpoint)
        return model

    def classifier(self, model: nn.Module) -> str:
        return "fc"

    def strip(self, model: Any) -> int:
        model.fc = nn.Identity()
        return self.channels(model)[-1]

    def features(self, model: Any, x: Tensor) -> list[Tensor]:
        """The outputs of the four stages, ``[N, C, H, W]``, at 1, 1/2, 1/4 and 1/8 of the stem's resolution."""
        x = model.relu(model.bn1(model.conv1(x)))
        maps = []
        for stage in (model.layer1, model.layer2, model.layer3, model.layer4):
            x = stage(x)
            maps.append(x)
        return maps

    def channels(self, model: Any) -> list[int]:
        return [stage[-1].conv2.out_channels for stage in (model.layer1, model.layer2, model.layer3, model.layer4)]


@pxframe.hookimpl
def pxframe_register(register):
    register.backbone(ResNet18)
