"""A task adapter turns a config and a backbone into an mmengine Runner."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from pxframe.plugin.backbone import Backbone

if TYPE_CHECKING:  # importing it takes longer than all else that `pxframe list` does
    from mmengine.runner import Runner
    from PIL.Image import Image


@dataclass(frozen=True)
class Picture:
    """A test image, its label and a trained model's prediction: three RGB pictures of one size.

    Attributes:
        name: of the image, the same for every model.
        image: the test image itself.
        truth: the label, drawn.
        predicted: the prediction, drawn in the same way.
        colours: the colour of each thing that is drawn in this picture, as ``"#rrggbb"``, by its name.
    """

    name: str
    image: Image
    truth: Image
    predicted: Image
    colours: Mapping[str, str] = field(default_factory=dict)


class Task:
    """Base of all task adapters. Constructor arguments are the task's config keys.

    The core calls, in this order: :meth:`prepare` once, before any work; :meth:`runner` and :meth:`rehearse` once, on
    a copy of the backbone and in a scratch folder; :meth:`batches` where images are scored; and for every run
    :meth:`runner`, then ``runner.train()``, ``runner.test()`` and :meth:`export`.

    Most tasks derive from :class:`pxframe.TrainedTask`, which implements all but :meth:`runner`.
    """

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
    #: Whether the backbone keeps its own classifier, so that a ticket can be tested without any training.
    own_classifier: bool = False

    def prepare(self) -> None:
        """Check that the data is there, or write the data that the config asks for. Called before any work begins.

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
            device: ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
            seed: of initialisation, shuffling and augmentation.
            resume: go on from the newest checkpoint in ``work_dir``, if there is one.

        Returns:
            an :class:`mmengine.runner.Runner`; :func:`pxframe.make_runner` makes one that resumes exactly. The core

            - calls ``register_hook(hook)``, before ``train()``, for the ticket (in ``before_train``, after a
              checkpoint has been loaded), the progress bar and the watch on the loss;
            - calls ``train()``, then ``test()``, which must return a dict with the key :attr:`metric`;
            - reads ``model``: an ``nn.Module`` in which the backbone's parameters keep their names behind a common
              prefix, such as ``backbone.``; ``train_step`` is replaced where only a part of the training is run;
            - reads ``optim_wrapper.optimizer``, the torch optimizer of those parameters, in ``before_train``, and
              ``optim_wrapper.get_lr()`` for curves;
            - reads ``message_hub.get_scalar("train/loss")``, which mmengine's ``RuntimeInfoHook`` fills where
              ``train_step`` returns a ``loss``; its mean over the last ``len(train_dataloader)`` steps is an epoch's;
            - reads ``iter``, ``epoch``, ``max_iters`` and ``max_epochs``; ``max_epochs`` is 0 where the head is
              fitted and not trained;
            - closes those of ``logger.handlers`` that write files.
        """
        raise NotImplementedError

    def rehearse(self, runner: Runner) -> None:
        """Try out a runner before any work begins, so that parts that do not fit together cost no work.

        Args:
            runner: made by :meth:`runner` for a copy of the backbone; it is thrown away afterwards.

        Raises:
            pxframe.PxframeError: the model, the data, the loss or the metric do not fit together.
        """

    def loss(self, output: Any, target: Tensor) -> Tensor:
        """The loss that scorers differentiate: a scalar of a model's output and the targets from :meth:`batches`.

        The model is the backbone with its own classifier, or the runner's whole model where that is pruned. Default:
        cross-entropy of logits ``[N, K, ...]`` and class numbers ``[N, ...]``.
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
            samples: the number of images in all. They are drawn by ``seed``, evenly over the classes where there are
                classes.
            batch_size: images in a pair; the last pair may have fewer.

        Returns:
            pairs of float inputs ``[N, C, H, W]`` and targets, on the CPU.
        """
        raise NotImplementedError

    def pictures(self, folder: Path, count: int) -> list[Picture]:
        """Predictions beside the truth, for the report: of the first test images that a run saved its output for.

        Called on a task that was built from its config; neither :meth:`prepare` nor :meth:`runner` was called.

        Args:
            folder: the ``work_dir`` of a finished run.
            count: how many at most.

        Returns:
            none where a task has nothing to draw, which is the default.

        Raises:
            pxframe.PxframeError: the run saved no output; the message says how to make it do so.
        """
        return []
