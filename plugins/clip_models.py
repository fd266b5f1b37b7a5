"""Image towers of CLIP, built by the open_clip library."""

from __future__ import annotations

import os
from typing import Any

from torch import Tensor, nn

import pxframe
from pxframe.base.errors import near
from pxframe.plugin.checkpoint import fit, read_checkpoint, unwrap
from pxframe_plugins.hub import no_weights

#: Prefix of the image tower's names in a file of the whole CLIP model, which has a text tower as well.
_IMAGE_TOWER = "visual."
#: A file with these entries comes from OpenAI. All of OpenAI's towers use QuickGELU.
_OPENAI = ("input_resolution", "context_length", "vocab_size")


class OpenCLIP(pxframe.Backbone):
    """open_clip's image towers: ResNets (three-convolution stem, anti-aliasing, attention pooling) and ViTs.

    They have no classifier, and :meth:`strip` removes nothing: ``model(x)`` gives CLIP's image embedding ``[N, D]``,
    after its projection. The height and width of images must be multiples of the patch size for ViTs, and of 32 for
    ResNets.
    """

    name = "open_clip"
    packages = ("open_clip_torch", "timm")

    def build(
        self,
        model: str = "RN50",
        pretrained: str | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        quick_gelu: bool | None = None,
    ) -> nn.Module:
        """Build the image tower.

        Args:
            model: open_clip's name of the model, e.g. ``"RN50"`` or ``"ViT-B-32"``. ``"RN50.openai"`` names the tag of
                its weights as well.
            pretrained: tag of weights that open_clip has in its cache or can download.
            checkpoint: a local file with the weights of the whole CLIP model or of the image tower alone; it takes the
                place of ``pretrained``.
            quick_gelu: whether the activation of the ViTs is sigmoid(1.702 x) x instead of GELU. The default is what
                the weights were trained with, if the tag or the file shows it, and else what the model's config says.

        Raises:
            PxframeError: open_clip has no such model or weights, timm builds the image tower, both ``pretrained`` and
                ``checkpoint`` are given, the weights cannot be downloaded, or the file does not fit.
        """
        import open_clip
        from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model

        from pxframe_plugins.clip_towers import build_tower

        where = f"backbone {self.name!r}"
        if model not in open_clip.list_models() and model in self.known():
            model, pretrained = model.split(".", 1)[0], pretrained or model.split(".", 1)[1]
        if model not in open_clip.list_models():
            known = near(model, open_clip.list_models())
            raise pxframe.PxframeError(f"{where}: open_clip has no model {model!r}{known}")
        config = open_clip.get_model_config(model)
        if "timm_model_name" in config["vision_cfg"]:
            timm_name = config["vision_cfg"]["timm_model_name"]
            raise pxframe.PxframeError(
                f"{where}: timm builds the image tower of {model!r}; use the backbone 'timm' with model={timm_name!r}"
            )
        if pretrained is not None and checkpoint is not None:
            raise pxframe.PxframeError(f"{where}: 'pretrained' and 'checkpoint' exclude each other")
        gelu = config.get("quick_gelu", False)
        if pretrained is not None:
            tags = list_pretrained_tags_by_model(model)
            source = get_pretrained_cfg(model, pretrained)
            if not source:
                raise pxframe.PxframeError(f"{where}: {model!r} has no weights {pretrained!r}{near(pretrained, tags)}")
            gelu = source.get("quick_gelu", False)
            checkpoint = self._fetched(model, pretrained, source)
        state = read_checkpoint(checkpoint) if checkpoint is not None else {}
        gelu = gelu or all(any(name.endswith(key) for name in state) for key in _OPENAI)
        tower = build_tower(config, gelu if quick_gelu is None else quick_gelu)
        if checkpoint is not None:
            part, _ = unwrap(state, tower.state_dict().keys(), holders=(_IMAGE_TOWER,))
            fit(tower, part, checkpoint)
        return tower

    def classifier(self, model: nn.Module) -> str:
        return ""

    def strip(self, model: Any) -> int:
        """Remove nothing, because there is no classifier, and give D, the size of CLIP's embedding."""
        return model.output_dim

    def features(self, model: Any, x: Tensor) -> list[Tensor]:
        """Features ``[N, C, H, W]``.

        A ResNet gives the outputs of its four stages, at 1/4, 1/8, 1/16 and 1/32 of the resolution. A ViT gives the
        tokens of every block, laid out as maps.
        """
        chosen = {"indices": [1, 2, 3, 4]} if _is_resnet(model) else {}
        return model.forward_intermediates(x, intermediates_only=True, **chosen)["image_intermediates"]

    def channels(self, model: Any) -> list[int]:
        if _is_resnet(model):
            return [stage[-1].conv3.out_channels for stage in (model.layer1, model.layer2, model.layer3, model.layer4)]
        return [model.conv1.out_channels] * len(model.transformer.resblocks)

    def dense(self, model: Any, output_stride: int | None) -> nn.Module:
        """As :meth:`pxframe.Backbone.dense`, for ResNets. A ViT's stride is its patch size and cannot be changed."""
        if output_stride is None:
            return model
        known = (4, 8, 16, 32) if _is_resnet(model) else model.conv1.stride[:1]
        if output_stride not in known:
            raise pxframe.PxframeError(
                f"backbone {self.name!r}: this tower has no 'output_stride' {output_stride!r}; "
                f"it may be {' or '.join(map(str, known))}"
            )
        if _is_resnet(model):
            from pxframe_plugins.clip_towers import dilate

            dilate(model, output_stride)
        return model

    def known(self) -> list[str]:
        import open_clip
        from open_clip.pretrained import list_pretrained_tags_by_model

        configs = {name: open_clip.get_model_config(name) for name in open_clip.list_models()}
        own = [name for name, config in configs.items() if "timm_model_name" not in config["vision_cfg"]]
        return [*own, *(f"{name}.{tag}" for name in own for tag in list_pretrained_tags_by_model(name))]

    def _fetched(self, model: str, tag: str, source: dict[str, Any]) -> str:
        """The file with the weights of a tag. It is downloaded if it is not in the cache."""
        from open_clip.pretrained import download_pretrained

        try:
            return download_pretrained(source)
        except Exception as error:  # every step of the download has its own exceptions
            hub, file = os.path.split(source.get("hf_hub", ""))
            raise no_weights(
                f"backbone {self.name!r}: no weights {tag!r} for {model!r}",
                error,
                hub=hub,
                file=file or "open_clip_model.safetensors",
                url=source.get("url", ""),
                cache="~/.cache/clip",
            ) from error


def _is_resnet(model: Any) -> bool:
    return hasattr(model, "layer4")


@pxframe.hookimpl
def pxframe_register(register):
    register.backbone(OpenCLIP)
