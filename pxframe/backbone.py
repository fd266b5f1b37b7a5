"""What a backbone provider is: it builds a network and knows how to read features from it."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn


class Backbone:
    """Base of all backbone providers.

    The network a provider builds stays the library's own module, its parameters under their own names: that is
    what lets one ticket fit the network alone, inside a classifier and inside a segmentor.
    """

    #: The name it is registered under.
    name: ClassVar[str] = ""

    def build(self, **options: Any) -> nn.Module:
        """The network, classifier included. Options are the provider's own.

        Raises:
            pxframe.PxframeError: an unknown model, a missing or unfitting checkpoint.
        """
        raise NotImplementedError

    def classifier(self, model: nn.Module) -> str:
        """Name of the classifier's module in ``model`` (its weights belong to the source task), or ``""``."""
        raise NotImplementedError

    def strip(self, model: nn.Module) -> int:
        """Remove the classifier in place, so that ``model(x)`` gives pooled features ``[N, D]``. Returns D."""
        raise NotImplementedError

    def features(self, model: nn.Module, x: Tensor) -> list[Tensor]:
        """Feature maps ``[N, C, H, W]``, one a stage, from high to low resolution."""
        raise NotImplementedError

    def channels(self, model: nn.Module) -> list[int]:
        """Channels of each map that :meth:`features` gives."""
        raise NotImplementedError
