"""What a task adapter is: it turns a config and a backbone into an mmengine Runner."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from pxframe.plugin.backbone import Backbone

if TYPE_CHECKING:  # importing it takes longer than all else that `pxframe list` does
    from mmengine.runner import Runner


class Task:
    """Base of all task adapters. Constructor arguments are the task's config keys."""

    #: The name it is registered under.
    name: ClassVar[str] = ""
    #: Key, in what the runner's ``test()`` returns, of the number to compare by; a config may choose another.
    metric: str = ""
    #: Whether a larger number is a better one: true of an accuracy, false of an error.
    higher_is_better: bool = True
    #: The number's unit, as tables and figures show it: ``"%"``, ``"px"``, or ``""`` for none.
    unit: str = "%"
    #: Further distributions whose versions the results depend on, e.g. ``("timm",)``.
    packages: ClassVar[tuple[str, ...]] = ()
    #: Whether a runner's whole model gives outputs for :meth:`loss`, so that it can be pruned with its head.
    whole: ClassVar[bool] = True

    def prepare(self) -> None:
        """Check that the data is there (or write what the config asks to be made). Called before any work begins.

        Raises:
            pxframe.PxframeError: data missing or not in the layout the task reads.
        """

    def runner(
        self, backbone: nn.Module, provider: Backbone, *, work_dir: Path, device: str, seed: int, resume: bool
    ) -> Runner:
        """A runner ready to ``train()`` and ``test()``: model with head, data, loss, metric, optimizer.

        Args:
            backbone: network with its classifier, this run's own; its weights are the starting point. The task
                trains this very module, and may strip it of its classifier.
            provider: what built it, and reads features from it.
            work_dir: folder of this run alone.
            device: ``"cpu"`` or ``"cuda"``.
            seed: of initialisation, shuffling and augmentation.
            resume: go on from the newest checkpoint in ``work_dir``, if there is one.
        """
        raise NotImplementedError

    def loss(self, output: Any, target: Tensor) -> Tensor:
        """The loss that scorers take on the runner's whole model: a scalar of its output and :meth:`batches`' targets.

        Default: cross-entropy of logits ``[N, K, ...]`` and class numbers ``[N, ...]``.
        """
        return F.cross_entropy(output, target)

    def export(self, model: nn.Module, classifier: str) -> dict[str, Tensor]:
        """The weights of a trained runner's model under the names its libraries use, for use without this one.

        Args:
            model: the runner's, on any device.
            classifier: the backbone's :meth:`pxframe.Backbone.place` for one.
        """
        return {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}

    def batches(self, samples: int, batch_size: int, *, seed: int) -> Iterable[tuple[Tensor, Any]]:
        """Training images for scoring, as the network sees them when it is tested: normalised, not augmented.

        Args:
            samples: how many in all, drawn by ``seed``, as evenly over the classes as they go where there are classes.

        Returns:
            pairs of float inputs ``[N, C, H, W]`` and targets, on the CPU.
        """
        raise NotImplementedError
