"""What a backbone provider is: it builds a network and knows how to read features from it."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any, ClassVar

from torch import Tensor, nn

from pxframe.base.errors import PxframeError


class Backbone:
    """Base of all backbone providers.

    The network a provider builds stays the library's own module, its parameters under their own names: that is
    what lets one ticket fit the network alone, inside a classifier and inside a segmentor.
    """

    #: The name it is registered under.
    name: ClassVar[str] = ""
    #: Further distributions whose versions the results depend on, e.g. ``("timm",)``.
    packages: ClassVar[tuple[str, ...]] = ()

    def build(self, **options: Any) -> nn.Module:
        """The network, classifier included. Options are the provider's own.

        Raises:
            pxframe.PxframeError: an unknown model, a missing or unfitting checkpoint.
        """
        raise NotImplementedError

    def classifier(self, model: nn.Module) -> str:
        """Name of the classifier's module in ``model`` (its weights belong to the source task), or ``""``."""
        raise NotImplementedError

    def place(self, model: nn.Module) -> str:
        """Name under which such a network keeps a classifier, also where this one has none; or ``""``."""
        return self.classifier(model)

    def strip(self, model: nn.Module) -> int:
        """Remove the classifier in place, so that ``model(x)`` gives pooled features ``[N, D]``. Returns D."""
        raise NotImplementedError

    def features(self, model: nn.Module, x: Tensor) -> list[Tensor]:
        """Feature maps ``[N, C, H, W]``, one a stage, from high to low resolution."""
        raise NotImplementedError

    def channels(self, model: nn.Module) -> list[int]:
        """Channels of each map that :meth:`features` gives."""
        raise NotImplementedError

    def dense(self, model: nn.Module, output_stride: int | None) -> nn.Module:
        """Make ``model`` end in a map of 1 / ``output_stride`` of the image's size, in place, and return it.

        For segmentation: the last stages are dilated instead of strided (DeepLab, arXiv 1606.00915, section 3.1), or
        strided again. Parameters and buffers stay the very same tensors under the same names, so a ticket fits as it
        did. None leaves the network as it is.

        Raises:
            PxframeError: the network has no such form.
        """
        if output_stride is not None:
            raise PxframeError(f"backbone {self.name!r} has no dilated form; leave 'output_stride' out")
        return model

    def models(self, pattern: str = "*") -> list[str]:
        """Names of the models it builds that match a shell wildcard; those with a dot name a set of weights too."""
        return [name for name in self.known() if fnmatchcase(name, pattern)]

    def known(self) -> list[str]:
        """Names of all models it builds."""
        return [self.name]
