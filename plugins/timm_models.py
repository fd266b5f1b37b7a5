"""All models of the timm library."""

from __future__ import annotations

import difflib
import inspect
from typing import Any

from torch import Tensor, nn

import pxframe
from pxframe.base.errors import near
from pxframe.plugin.checkpoint import load_checkpoint
from pxframe_plugins.hub import no_weights

#: Attribute of a network that holds the options it was built with, because its dense form is built with the same ones.
#: It is an attribute, and not an entry in a table, so that copies of the network (copy.deepcopy, pickle) keep it.
_BUILT = "pxframe_built_with"


class Timm(pxframe.Backbone):
    """All models of timm, under timm's names: ``architecture`` or ``architecture.tag``."""

    name = "timm"
    packages = ("timm",)

    def build(self, model: str, pretrained: bool = False, checkpoint: str | None = None, **options: Any) -> nn.Module:
        """Build a model with ``timm.create_model``.

        Args:
            model: timm's name of the model.
            pretrained: take weights from timm's cache, or download them. The classifier gets random weights if
                ``num_classes`` differs from that of the pre-trained weights.
            checkpoint: a local file with weights under timm's names; it takes the place of ``pretrained``. It must hold
                all weights, also those of the classifier. So leave ``num_classes`` as in the file: a task replaces the
                classifier by its own head anyway.
            options: further arguments of ``timm.create_model``, e.g. ``num_classes``, ``img_size``. A vision
                transformer takes images of one size. With ``dynamic_img_size=True`` it takes every size that is a
                multiple of its patch size.

        With random weights, timm lets the residual branches of ResNets start at zero. Here they do not, because weights
        of a branch whose output is zero have no saliency. ``zero_init_last=True`` restores timm's behaviour.

        Raises:
            PxframeError: timm has no such model or weights, both ``pretrained`` and ``checkpoint`` are given, the model
                cannot be built, the weights cannot be downloaded, or the file does not fit.
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
        except Exception as error:  # the model's own code and every step of the download may fail
            if pretrained and not isinstance(error, TypeError):
                raise no_weights(f"{where}: no weights for {model!r}", error, **_source(model)) from error
            cause = f"{type(error).__name__}: {error}".splitlines()[0]
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
        """As :meth:`pxframe.Backbone.dense`, with timm's own ``output_stride``."""
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
                p.requires_grad_(learned[name])  # load_state_dict took requires_grad from the new network
            if network.feature_info[-1]["reduction"] != output_stride:
                raise ValueError(f"it stays at {network.feature_info[-1]['reduction']}")
        except Exception as error:  # the model's own code may fail in any way
            cause = f"{type(error).__name__}: {error}".splitlines()[0]
            raise pxframe.PxframeError(
                f"backbone {self.name!r}: timm cannot change the 'output_stride' of {options['model_name']!r} "
                f"from {own} to {output_stride!r} ({cause})"
            ) from error
        network.train(model.training)
        setattr(network, _BUILT, getattr(model, _BUILT))
        # The model must be changed in place, because a task may hold it already. timm can only build a second network
        # for the dense form. It has the same class and shares this model's parameters, so the model takes over all of
        # its attributes.
        vars(model).update(vars(network))
        return model

    def models(self, pattern: str = "*") -> list[str]:
        import timm

        plain = timm.list_models(pattern)
        return [*plain, *(name for name in timm.list_models(pattern, pretrained=True) if name not in set(plain))]

    def _check(self, model: Any) -> None:
        if not (hasattr(model, "forward_intermediates") and hasattr(model, "feature_info")):
            raise pxframe.PxframeError(
                f"backbone {self.name!r}: {type(model).__name__} gives no intermediate features in this version of timm"
            )


def _source(model: str) -> dict[str, str]:
    """Where timm looks for the weights of ``model``: arguments of :func:`~pxframe_plugins.hub.no_weights`."""
    import timm
    from torch.hub import get_dir

    source = timm.get_pretrained_cfg(model)
    if source is None or not source.has_weights:
        return {}
    if source.hf_hub_id:
        return {"hub": source.hf_hub_id, "file": source.hf_hub_filename or "model.safetensors"}
    url = source.url if isinstance(source.url, str) else (source.url or ["its file"])[0]
    return {"url": str(source.file or url), "cache": f"{get_dir()}/checkpoints"}


@pxframe.hookimpl
def pxframe_register(register):
    register.backbone(Timm)
