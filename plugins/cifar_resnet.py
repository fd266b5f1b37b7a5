"""ResNets for small images (He et al. 2016, arXiv 1512.03385, section 4.2), with three stages and a depth of 6n + 2."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

import pxframe
from pxframe.plugin.checkpoint import load_checkpoint

DEPTHS = (8, 14, 20, 32, 44, 56)


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut: the identity, or option A or B where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int, shortcut: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride, self.extra = stride, outputs - inputs
        self.downsample: nn.Module | None = None
        if shortcut == "B" and (stride != 1 or self.extra):
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return F.relu(out + self._shortcut(x))

    def _shortcut(self, x: Tensor) -> Tensor:
        if self.downsample is not None:
            return self.downsample(x)
        if self.stride == 1 and not self.extra:
            return x
        before = self.extra // 2
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, before, self.extra - before))


class ResNet(nn.Module):
    """Maps images ``[N, 3, H, W]`` to logits ``[N, num_classes]``."""

    def __init__(self, depth: int, shortcut: str, num_classes: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        blocks = (depth - 2) // 6
        self.layer1 = _stage(blocks, width, width, 1, shortcut)
        self.layer2 = _stage(blocks, width, 2 * width, 2, shortcut)
        self.layer3 = _stage(blocks, 2 * width, 4 * width, 2, shortcut)
        self.linear: nn.Module = nn.Linear(4 * width, num_classes)
        kaiming_normal(self)

    def stages(self, x: Tensor) -> list[Tensor]:
        """The outputs of the three stages, ``[N, C, H, W]``, at 1, 1/2 and 1/4 of the resolution."""
        x = F.relu(self.bn1(self.conv1(x)))
        maps = []
        for stage in (self.layer1, self.layer2, self.layer3):
            x = stage(x)
            maps.append(x)
        return maps

    def forward(self, x: Tensor) -> Tensor:
        x = self.stages(x)[-1]
        return self.linear(F.adaptive_avg_pool2d(x, 1).flatten(1))


def kaiming_normal(model: nn.Module) -> None:
    """Draw the weights of convolutions and linear layers from N(0, 2 / fan in) (arXiv 1502.01852, Eq. 10)."""
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight)


def _stage(blocks: int, inputs: int, outputs: int, stride: int, shortcut: str) -> nn.Sequential:
    first = Block(inputs, outputs, stride, shortcut)
    return nn.Sequential(first, *(Block(outputs, outputs, 1, shortcut) for _ in range(blocks - 1)))


class CifarResNet(pxframe.Backbone):
    """ResNet-20, 32, 44, 56 (and 8, 14) for images of about 32x32."""

    name = "cifar_resnet"

    def build(
        self,
        depth: int = 20,
        shortcut: str = "A",
        num_classes: int = 10,
        width: int = 16,
        checkpoint: str | None = None,
    ) -> nn.Module:
        """Build the network.

        Args:
            depth: 8, 14, 20, 32, 44 or 56.
            shortcut: the shortcut where the shape changes. ``"A"`` takes every second pixel and adds channels of zeros.
                ``"B"`` is a 1x1 convolution and batch norm.
            num_classes: number of outputs of ``linear``.
            width: channels of the first stage. The next two stages have twice and four times as many.
            checkpoint: a file with all weights. Without one, weights are drawn (Kaiming normal, fan in).

        Raises:
            PxframeError: the depth or shortcut is unknown, or the checkpoint does not fit.
        """
        if depth not in DEPTHS:
            raise pxframe.PxframeError(f"backbone {self.name!r}: no depth {depth!r}; known: {DEPTHS}")
        if shortcut not in ("A", "B"):
            raise pxframe.PxframeError(f"backbone {self.name!r}: 'shortcut' must be 'A' or 'B', got {shortcut!r}")
        model = ResNet(depth, shortcut, num_classes, width)
        if checkpoint is not None:
            load_checkpoint(model, checkpoint)
        return model

    def classifier(self, model: nn.Module) -> str:
        return "linear"

    def strip(self, model: nn.Module) -> int:
        model.linear = nn.Identity()
        return self.channels(model)[-1]

    def features(self, model: Any, x: Tensor) -> list[Tensor]:
        return model.stages(x)

    def channels(self, model: Any) -> list[int]:
        return [stage[-1].conv2.out_channels for stage in (model.layer1, model.layer2, model.layer3)]

    def known(self) -> list[str]:
        return [f"resnet{depth}" for depth in DEPTHS]


@pxframe.hookimpl
def pxframe_register(register):
    register.backbone(CifarResNet)
