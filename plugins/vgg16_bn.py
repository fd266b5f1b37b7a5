"""VGG-16 with batch norm for small images, as in the papers on pruning at initialisation."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from torch import Tensor, nn

import pxframe
from pxframe.base.options import whole_number
from pxframe.plugin.checkpoint import load_checkpoint
from pxframe_plugins.cifar_resnet import kaiming_normal


class VGG16BN(pxframe.Backbone):
    """torchvision's thirteen convolutions, global average pooling and one linear layer, for images of 16x16 or more.

    The network is configuration D of Simonyan and Zisserman, arXiv 1409.1556, with one linear layer in place of three
    and average pooling in place of the last max-pooling, as in the code of SynFlow (arXiv 2006.05467).
    """

    name = "vgg16_bn"

    def build(self, num_classes: int = 10, width: int = 64, checkpoint: str | None = None) -> nn.Module:
        """Build the network.

        Args:
            num_classes: number of outputs of ``classifier``.
            width: channels of the first stage. The next four stages have two, four, eight and eight times as many.
            checkpoint: a file with all weights. Without one, weights are drawn (Kaiming normal, fan in), and biases are
                zero.

        Raises:
            PxframeError: the width is not a whole number above 0, or the checkpoint does not fit.
        """
        from torchvision.models.vgg import cfgs, make_layers

        whole_number(f"backbone {self.name!r}", "width", width)
        plan = [c if c == "M" else c * width // 64 for c in cfgs["D"][:-1]]
        model = nn.Sequential(
            OrderedDict(
                features=make_layers(plan, batch_norm=True),
                pool=nn.AdaptiveAvgPool2d(1),
                flatten=nn.Flatten(),
                classifier=nn.Linear(8 * width, num_classes),
            )
        )
        kaiming_normal(model)
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
        if checkpoint is not None:
            load_checkpoint(model, checkpoint)
        return model

    def classifier(self, model: nn.Module) -> str:
        return "classifier"

    def strip(self, model: Any) -> int:
        model.classifier = nn.Identity()
        return self.channels(model)[-1]

    def features(self, model: Any, x: Tensor) -> list[Tensor]:
        """The outputs of the five stages before max-pooling, ``[N, C, H, W]``.

        Their resolutions are 1, 1/2, 1/4, 1/8 and 1/16 of the image's.
        """
        maps = []
        for layer in model.features:
            if isinstance(layer, nn.MaxPool2d):
                maps.append(x)
            x = layer(x)
        return [*maps, x]

    def channels(self, model: Any) -> list[int]:
        widths, last = [], 0
        for layer in model.features:
            if isinstance(layer, nn.MaxPool2d):
                widths.append(last)
            last = getattr(layer, "out_channels", last)
        return [*widths, last]


@pxframe.hookimpl
def pxframe_register(register):
    register.backbone(VGG16BN)
