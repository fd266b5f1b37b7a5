"""The encoder of a MoCo v2 checkpoint, as a ResNet of timm."""

from __future__ import annotations

import os
from typing import Any

from torch import nn

import pxframe
from pxframe.plugin.checkpoint import fit, read_checkpoint, unwrap
from pxframe_plugins.timm_models import Timm

ARCHITECTURES = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")

#: In a MoCo checkpoint, the names of the query encoder's weights begin with ``module.`` and this prefix.
_ENCODER = "encoder_q."
#: Prefixes of the other entries in a MoCo checkpoint: the key encoder and the queue.
_BESIDE = ("encoder_k.", "queue")
#: Prefix of the projection head: ``fc`` is one layer in MoCo v1; in v2 its layers are ``fc.0`` and ``fc.2``.
_HEAD = ("fc.",)


class MoCoV2(Timm):
    """ResNets pre-trained by momentum contrast (Chen, Fan, Girshick, He, arXiv 2003.04297), from the authors' files.

    These files use torchvision's names for weights, and so do timm's ResNets.
    """

    name = "mocov2"

    def build(
        self, checkpoint: str | os.PathLike[str], num_classes: int = 0, arch: str = "resnet50", **options: Any
    ) -> nn.Module:
        """Build the ResNet and load the query encoder. The projection head, key encoder and queue are not loaded.

        Args:
            checkpoint: a file that ``torch.save`` wrote of ``dict(state_dict=...)``. Names begin with
                ``module.encoder_q.``; ``module.`` may be missing, and ``encoder_q.`` may be ``encoder.``, ``backbone.``
                or missing.
            num_classes: number of outputs of ``fc``, a new classifier with random weights. Scorers that need labels
                need it. With 0 there is no classifier, and the network gives pooled features ``[N, D]``.
            arch: name of the ResNet in timm and torchvision.
            options: further arguments of ``timm.create_model``.

        Raises:
            PxframeError: the architecture is unknown, the encoder lacks a weight, or the file holds weights that no
                MoCo checkpoint has.
        """
        if arch not in ARCHITECTURES:
            raise pxframe.PxframeError(f"backbone {self.name!r}: no 'arch' {arch!r}; known: {', '.join(ARCHITECTURES)}")
        network = super().build(arch, num_classes=num_classes, **options)
        state, beside = unwrap(read_checkpoint(checkpoint), network.state_dict().keys(), holders=(_ENCODER,))
        encoder = {name: t for name, t in state.items() if not name.startswith(_HEAD)}
        unknown = {name: t for name, t in beside.items() if not name.startswith(_BESIDE)}
        fit(network, {**encoder, **unknown}, checkpoint, fresh=_HEAD)
        return network

    def models(self, pattern: str = "*") -> list[str]:
        return pxframe.Backbone.models(self, pattern)

    def known(self) -> list[str]:
        return list(ARCHITECTURES)


@pxframe.hookimpl
def pxframe_register(register):
    register.backbone(MoCoV2)
