"""Any model of the timm library."""

from __future__ import annotations

import difflib
import inspect
from typing import Any

from torch import Tensor, nn

import pxframe
from pxframe.base.errors import near
from pxframe.plugin.checkpoint import load_checkpoint

#: Attribute of a network that holds what it was built with, so that its dense form can be built alike.
_BUILT = "pxframe_built_with"


class Timm(pxframe.Backbone):
    """Models by timm's names, ``architecture`` or ``architecture.tag``."""

    name = "timm"
    packages = ("timm",)

    def build(self, model: str, pretrained: bool = False, checkpoint: str | None = None, **options: Any) -> nn.Module:
        """Build a model with ``timm.create_model``.

        Args:
            model: timm's name for it.
            pretrained: weights from timm's cache or the network. A classifier of another size than theirs is random.
            checkpoint: a local file with weights for all of it, instead, under timm's names. That includes the
                classifier: leave ``num_classes`` at the file's, since a task puts its own head in its place.
            options: more arguments for ``timm.create_model``, e.g. ``num_classes``, ``img_size``. Vision transformers
                take images of one size; with ``dynamic_img_size=True`` of any that their patches divide.

        With random weights the residual branches of ResNets do not start at zero, as they do in timm: a branch
        that gives nothing has no saliency either. ``zero_init_last=True`` keeps timm's way.
        """
        import timm

        where = f"backbone {self.name!r}"
        if not timm.is_model(model):
            close = difflib.get_close_matches(model, timm.list_models(), n=3, cutoff=0.5)
            hint = f"did you mean {' or '.join(map(repr, close))}?" if close else "timm.list_models() lists them"
            raise pxframe.PxframeError(f"{where}: timm has no model {model!r}; {hint}")
        try:
            timm.get_pretrained_cfg(model)
        except RuntimeError as error:
            arch, _, tag = model.partition(".")
            tags = [name.partition(".")[2] for name in timm.list_pretrained(f"{arch}.*")]
            raise pxframe.PxframeError(f"{where}: timm has no weights {tag!r} of {arch!r}{near(tag, tags)}") from error
        if pretrained and checkpoint is not None:
            raise pxframe.PxframeError(f"{where}: 'pretrained' and 'checkpoint' exclude each other")
        try:
            network = timm.create_model(model, pretrained=pretrained, **options)
            if not (pretrained or checkpoint) and "zero_init_last" in inspect.signature(type(network)).parameters:
                network = timm.create_model(model, **{"zero_init_last": False, **options})
        except Exception as error:  # the model's own code, or any layer of the download
            cause = f"{type(error).__name__}: {error}".splitlines()[0]
            if pretrained and not isinstance(error, TypeError):
                raise pxframe.PxframeError(f"{where}: no weights for {model!r}: {_missing(model)} ({cause})") from error
            raise pxframe.PxframeError(f"{where}: cannot build {model!r}: {cause}") from error
        setattr(network, _BUILT, {"model_name": model, **options})
        if checkpoint is not None:
            load_checkpoint(network, checkpoint)
        return network

    def classifier(self, model: Any) -> str:
        return self.place(model) if model.num_classes else ""

    def place(self, model: Any) -> str:
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

    def dense(self, model: Any, output_stride: int | None) -> nn.Module:
        """As :meth:`pxframe.Backbone.dense`, by timm's own ``output_stride``."""
        import timm

        self._check(model)
        own = model.feature_info[-1]["reduction"]
        if output_stride in (None, own):
            return model
        options = {**getattr(model, _BUILT), "num_classes": model.num_classes, "output_stride": output_stride}
        try:
            network = timm.create_model(**options)
            learned = {name: p.requires_grad for name, p in model.named_parameters()}
            network.load_state_dict(model.state_dict(keep_vars=True), assign=True)
            for name, p in network.named_parameters():
                p.requires_grad_(learned[name])  # which loading sets as it was in the new network
            if network.feature_info[-1]["reduction"] != output_stride:
                raise ValueError(f"it stays at {network.feature_info[-1]['reduction']}")
        except Exception as error:  # the model's own code
            cause = f"{type(error).__name__}: {error}".splitlines()[0]
            raise pxframe.PxframeError(
                f"backbone {self.name!r}: timm cannot give {options['model_name']!r}, whose 'output_stride' is {own}, "
                f"one of {output_stride!r} ({cause})"
            ) from error
        network.train(model.training)
        setattr(network, _BUILT, getattr(model, _BUILT))
        vars(model).update(vars(network))  # whoever holds this network has the dense one now
        return model

    def models(self, pattern: str = "*") -> list[str]:
        import timm

        plain = timm.list_models(pattern)
        return [*plain, *(name for name in timm.list_models(pattern, pretrained=True) if name not in set(plain))]

    def _check(self, model: Any) -> None:
        if not (hasattr(model, "forward_intermediates") and hasattr(model, "feature_info")):
            raise pxframe.PxframeError(
                f"backbone {self.name!r}: {type(model).__name__} gives no intermediate features in this timm"
            )


def _missing(model: str) -> str:
    """Which file ``model`` needs, where timm looks for it, and what to do without a network."""
    import timm
    from huggingface_hub.constants import HF_HUB_CACHE
    from torch.hub import get_dir

    source = timm.get_pretrained_cfg(model)
    if source is None or not source.has_weights:
        return "timm knows none; give a local file as 'checkpoint'"
    if source.hf_hub_id:
        file = source.hf_hub_filename or "model.safetensors"
        entry = f"models--{source.hf_hub_id.replace('/', '--')}"
        what, where = f"{file} of {source.hf_hub_id} on the Hugging Face hub", HF_HUB_CACHE
        how = f"copy the folder {entry} there from the cache of a machine that has it"
    else:
        url = source.url if isinstance(source.url, str) else (source.url or ["its file"])[0]
        what, where, how = str(source.file or url), f"{get_dir()}/checkpoints", "put the file there"
    return f"{what} is neither cached in {where} nor reachable; {how}, or give a local file as 'checkpoint'"


@pxframe.hookimpl
def pxframe_register(register):
    register.backbone(Timm)
