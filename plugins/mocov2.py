"""Encoders of MoCo v2 checkpoints, in timm's ResNets."""

from __future__ import annotations

import os
from typing import Any

from torch import nn

import pxframe
from pxframe.plugin.checkpoint import fit, read_checkpoint, unwrap
from pxframe_plugins.timm_models import Timm

ARCHITECTURES = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")

#: Prefix of the query encoder's names in a MoCo checkpoint, behind ``module.``.
_ENCODER = "encoder_q."
#: What a MoCo checkpoint holds beside the query encoder.
_BESIDE = ("encoder_k.", "queue")
#: The projection head: one layer in MoCo v1, ``fc.0`` and ``fc.2`` in v2.
_HEAD = ("fc.",)


class MoCoV2(Timm):
    """ResNets pre-trained by momentum contrast (Chen, Fan, Girshick, He, arXiv 2003.04297), from the authors' files.

    Their names are torchvision's, which timm's ResNets share.
    """

    name = "mocov2"

    def build(
        self, checkpoint: str | os.PathLike[str], num_classes: int = 0, arch: str = "resnet50", **options: Any
    ) -> nn.Module:
        """Build the ResNet and load the query encoder; the projection head, key encoder and queue are dropped.

        Args:
            checkpoint: ``torch.save`` of ``dict(state_dict=...)`` with names ``module.encoder_q.*``; also without
                ``module.``, or with ``encoder.``, ``backbone.`` or nothing in place of ``encoder_q.``.
            num_classes: outputs of ``fc``, a new classifier with random weights, which scorers that need labels want.
                With 0 there is none, and the network gives pooled features ``[N, D]``.
            arch: timm's and torchvision's name of the ResNet.
            options: more arguments for ``timm.create_model``.

        Raises:
            pxframe.PxframeError: the encoder lacks a weight, or the file has others than those of MoCo.
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
