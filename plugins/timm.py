"""Any model of the timm library."""

from __future__ import annotations

import difflib
import inspect
from typing import Any

from torch import Tensor, nn

import pxframe
from pxframe.checkpoint import load_checkpoint


class Timm(pxframe.Backbone):
    """Models by timm's names, ``architecture`` or ``architecture.tag``."""

    name = "timm"

    def build(self, model: str, pretrained: bool = False, checkpoint: str | None = None, **options: Any) -> nn.Module:
        """Build a model with ``timm.create_model``.

        Args:
            model: timm's name for it.
            pretrained: weights from timm's cache or the network.
            checkpoint: a local file with weights for all of it, instead.
            options: more arguments for ``timm.create_model``, e.g. ``num_classes``, ``img_size``.

        With random weights the residual branches of ResNets do not start at zero, as they do in timm: a branch
        that gives nothing has no saliency either. ``zero_init_last=True`` keeps timm's way.
        """
        import timm

        where = f"backbone {self.name!r}"
        if not timm.is_model(model):
            close = difflib.get_close_matches(model, timm.list_models(), n=3, cutoff=0.5)
            hint = f"did you mean {' or '.join(map(repr, close))}?" if close else "timm.list_models() lists them"
            raise pxframe.PxframeError(f"{where}: timm has no model {model!r}; {hint}")
        if pretrained and checkpoint is not None:
            raise pxframe.PxframeError(f"{where}: 'pretrained' and 'checkpoint' exclude each other")
        try:
            network = timm.create_model(model, pretrained=pretrained, **options)
            if not (pretrained or checkpoint) and "zero_init_last" in inspect.signature(type(network)).parameters:
                network = timm.create_model(model, **{"zero_init_last": False, **options})
        except Exception as error:  # the model's own code, or any layer of the download
            cause = f"{type(error).__name__}: {error}".splitlines()[0]
            if pretrained and not isinstance(error, TypeError):
                raise pxframe.PxframeError(
                    f"{where}: no weights for {model!r}: {_source(model)} is neither cached nor reachable ({cause}); "
                    f"give a local file as 'checkpoint'"
                ) from error
            raise pxframe.PxframeError(f"{where}: cannot build {model!r}: {cause}") from error
        if checkpoint is not None:
            load_checkpoint(network, checkpoint)
        return network

    def classifier(self, model: Any) -> str:
        name = model.pretrained_cfg.get("classifier") or ""
        return name if isinstance(name, str) else name[0]

    def strip(self, model: Any) -> int:
        model.reset_classifier(0)
        return getattr(model, "head_hidden_size", None) or model.num_features

    def features(self, model: Any, x: Tensor) -> list[Tensor]:
        self._check(model)
        return model.forward_intermediates(x, intermediates_only=True)

    def channels(self, model: Any) -> list[int]:
        self._check(model)
        return [stage["num_chs"] for stage in model.feature_info]

    def _check(self, model: Any) -> None:
        if not (hasattr(model, "forward_intermediates") and hasattr(model, "feature_info")):
            raise pxframe.PxframeError(
                f"backbone {self.name!r}: {type(model).__name__} gives no intermediate features in this timm"
            )


def _source(model: str) -> str:
    import timm

    source = timm.get_pretrained_cfg(model)
    if source is None:
        return "its file"
    return source.hf_hub_id or source.url or source.file or "its file"


@pxframe.hookimpl
def pxframe_register(register):
    register.backbone(Timm)
