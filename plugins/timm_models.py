"""Any model of the timm library."""

from __future__ import annotations

import difflib
import inspect
from typing import Any

from torch import Tensor, nn

import pxframe
from pxframe.base.errors import near
from pxframe.plugin.checkpoint import load_checkpoint
from pxframe_plugins.hub import no_weights

#: Attribute of a network that holds the options it was built with: its dense form is built with them too. It is an
#: attribute, and not an entry in a table of ours, because copies of the network (copy.deepcopy, pickle) must keep it.
_BUILT = "pxframe_built_with"


class Timm(pxframe.Backbone):
    """All models of timm, by timm's names: ``architecture`` or ``architecture.tag``."""

    name = "timm"
    packages = ("timm",)

    def build(self, model: str, pretrained: bool = False, checkpoint: str | None = None, **options: Any) -> nn.Module:
        """Build a model with ``timm.create_model``.

        Args:
            model: timm's name for it.
            pretrained: take weights from timm's cache or download them. The classifier's are random where
                ``num_classes`` differs from theirs.
            checkpoint: a local file with weights instead, under timm's names. It must hold all weights, also those of
                the classifier: leave ``num_classes`` as in the file, since a task puts its own head in its place.
            options: further arguments of ``timm.create_model``, e.g. ``num_classes``, ``img_size``. A vision
                transformer takes images of one size; with ``dynamic_img_size=True``, of any that its patches divide.

        With random weights, timm lets the residual branches of ResNets start at zero. Here they do not, because a
        branch whose output is zero has no saliency. ``zero_init_last=True`` restores timm's way.
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
        # The contract is "in place": a task may hold this module already. timm can only build a dense form anew, of the
        # same class, so the module takes over all attributes of the new one, which has this one's own parameters.
        vars(model).update(vars(network))
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


def _source(model: str) -> dict[str, str]:
    """Where timm looks for the weights of ``model``, for the error that they are not there."""
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
