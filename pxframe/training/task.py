"""The base class of tasks that train: data sets from a config, and images to score on."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from pxframe.base.errors import PxframeError, blaming
from pxframe.base.paths import expand_all, locate, prepare_once
from pxframe.base.undisturbed import seeded
from pxframe.plugin.task import Task
from pxframe.training.drawing import drawn
from pxframe.training.settings import SPLITS, TaskSettings


class TrainedTask(TaskSettings, Task):
    """Base of tasks that train on ``data["train"]`` and are scored on ``data["test"]``.

    A subclass says how a data set is built, and gives a runner: :func:`pxframe.make_runner` makes one of a model, a
    metric and the task itself. Its config keys are those of :class:`pxframe.training.settings.TaskSettings`, and its
    own, where it is a dataclass (``@dataclass(kw_only=True, eq=False)``).
    """

    #: Key, in the config of a data set, of the folder it lies in.
    root_key = "root"
    #: Key, there, of what is done to an image.
    transform_key = "transform"

    @cached_property
    def _datasets(self) -> dict[tuple[str, str], Any]:
        return {}

    def prepare(self) -> None:
        """Write the data the config asks for, build both data sets, and read an image of each."""
        if self.written_by is not None:
            prepare_once(self.written_by, f"{self.where}: 'prepare'")
        for split in SPLITS:
            dataset = self.dataset(split)
            where = f"{self.where}: data[{split!r}]"
            if not len(dataset):
                raise PxframeError(f"{where}: there are no images in it")
            with blaming(where), seeded(0, torch.device("cpu")):
                dataset[0]

    def dataset(self, split: str, transforms_of: str = "") -> Any:
        """The data set of ``"train"`` or ``"test"``, built once; its images may be treated as the other's are."""
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
            yield self.stack([dataset[i] for i in chosen[start : start + batch_size]])

    def labels(self, dataset: Any) -> Sequence[Any] | None:
        """The class of every image, where an image has one."""
        return None

    def stack(self, items: list[Any]) -> tuple[Tensor, Any]:
        """Normalised inputs ``[N, 3, H, W]`` and targets, of what the data set gives."""
        raise NotImplementedError

    def build_dataset(self, config: dict[str, Any], split: str) -> Any:
        """The data set that ``config`` describes, its root located."""
        raise NotImplementedError
