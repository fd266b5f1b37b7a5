"""The base class of tasks that train: data sets from a config, and images to score on."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from pxframe.base import ranks
from pxframe.base.errors import PxframeError, blaming
from pxframe.files.paths import expand_all, locate
from pxframe.files.prepared import prepare_once
from pxframe.images.drawing import drawn
from pxframe.images.settings import SPLITS, TaskSettings
from pxframe.plugin.task import Task
from pxframe.running.undisturbed import seeded


class TrainedTask(TaskSettings, Task):
    """Base of tasks that train on ``data["train"]`` and are tested on ``data["test"]``.

    A subclass implements :meth:`pxframe.Task.runner`: it builds a model (:class:`pxframe.ImageModel` will often do)
    and hands it, a metric (:class:`pxframe.TorchMetric`) and itself to :func:`pxframe.make_runner`. Its config keys
    are those of :class:`pxframe.images.settings.TaskSettings`, and its own fields where it is a dataclass
    (``@dataclass(kw_only=True, eq=False)``).

    The data sets are pairs of (image, target), read by :class:`pxframe.images.dataset.Images`. A subclass whose data
    are of another kind overrides :meth:`build_dataset` and :meth:`stack`, and :meth:`labels` where there are classes.
    """

    #: Key, in the config of a data set, of the folder that it lies in.
    root_key = "root"
    #: Key, in the config of a data set, of the transforms of its images.
    transform_key = "transform"

    @cached_property
    def _datasets(self) -> dict[tuple[str, str], Any]:
        return {}

    def prepare(self) -> None:
        """Write the data that the config asks for, build both data sets, and read the first image of each."""
        if self.written_by is not None:
            written = self.written_by
            ranks.by_first(lambda: prepare_once(written, f"{self.where}: 'prepare'"))
        for split in SPLITS:
            dataset = self.dataset(split)
            where = f"{self.where}: data[{split!r}]"
            if not len(dataset):
                raise PxframeError(f"{where}: there are no images in it")
            with blaming(where), seeded(0, torch.device("cpu")):
                self.check_item(dataset[0])

    def check_item(self, item: Any) -> None:
        """Raise :class:`pxframe.PxframeError` if the task cannot use what a data set gives; default: accept it."""

    def rehearse(self, runner: Any) -> None:
        """Try one training step, without its update, and one test; see :func:`pxframe.images.rehearsal.rehearse`."""
        from pxframe.images.rehearsal import rehearse
        from pxframe.training.runner import TaskRunner

        if isinstance(runner, TaskRunner):
            rehearse(runner, self.where, self.metric)

    def dataset(self, split: str, transforms_of: str = "") -> Any:
        """The data set of ``"train"`` or ``"test"``, built once.

        Args:
            transforms_of: the split whose transforms its images go through; default: its own.
        """
        key = (split, transforms_of or split)
        if key not in self._datasets:
            config = copy.deepcopy(self.data[split])
            if transforms_of:
                config.pop(self.transform_key, None)
                if self.transform_key in self.data[transforms_of]:
                    config[self.transform_key] = copy.deepcopy(self.data[transforms_of][self.transform_key])
            config = expand_all(config, f"{self.where}: data[{split!r}]")
            with blaming(f"{self.where}: data[{split!r}]"):
                if self.root_key in config:
                    config[self.root_key] = str(locate(config[self.root_key]))
                self._datasets[key] = self.build_dataset(config, split)
        return self._datasets[key]

    def batches(self, samples: int, batch_size: int, *, seed: int) -> Iterator[tuple[Tensor, Any]]:
        """Training images as the test transforms leave them; see :meth:`pxframe.Task.batches`."""
        dataset = self.dataset("train", transforms_of="test")
        chosen = drawn(len(dataset), samples, self.labels(dataset), seed)
        for start in range(0, len(chosen), batch_size):
            with blaming(f"{self.where}: images to score on"):
                batch = self.stack([dataset[i] for i in chosen[start : start + batch_size]])
            yield batch

    def labels(self, dataset: Any) -> Sequence[Any] | None:
        """The class of every image, or None where images have no class."""
        return getattr(dataset, "targets", None)

    def stack(self, items: list[Any]) -> tuple[Tensor, Any]:
        """One scoring batch of items of a data set: normalised images ``[N, 3, H, W]``, and targets ``[N, ...]``."""
        from pxframe.training.make import stacked

        batch = stacked(items)
        mean, std = (torch.tensor(v, dtype=torch.float32).view(3, 1, 1) for v in (self.mean, self.std))
        return (batch["inputs"].float() - mean) / std, batch["data_samples"]

    def build_dataset(self, config: dict[str, Any], split: str) -> Any:
        """The data set that ``config`` describes; the path under :attr:`root_key` is already located."""
        from pxframe.images.dataset import Images

        return Images(config)
