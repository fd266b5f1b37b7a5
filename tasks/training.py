"""What all trained tasks share: config keys for data and training, and how both become a runner."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

import pxframe
from pxframe.data import locate, prepare_once

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)

SPLITS = ("train", "test")


class TrainedTask(pxframe.Task):
    """Base of tasks that train on ``data["train"]`` and are scored on ``data["test"]``.

    Args:
        data: ``dict(train=..., test=...)``, each the config of a data set.
        epochs: passes over the training set.
        batch_size: images a step; an incomplete last batch is left out.
        optimizer: config of a torch optimizer.
        schedule: configs of mmengine parameter schedulers; default: cosine to zero.
        head_lr_mult: the head's learning rate, as a factor on the backbone's.
        num_workers: processes that load data.
        amp: ``"bfloat16"`` for mixed precision while training, ``"float32"`` for none; default: mixed on a GPU.
        prepare: ``dict(type="package.function", root=FOLDER, **options)``, which writes the data, once.
        mean: of the pixel values (0 to 255, RGB), subtracted.
        std: of the pixel values, divided by.
    """

    #: Key, in the config of a data set, of the folder it lies in.
    root_key = "root"
    #: Key, there, of what is done to an image.
    transform_key = "transform"

    def __init__(
        self,
        *,
        data: Mapping[str, Any],
        epochs: int,
        batch_size: int,
        optimizer: Mapping[str, Any],
        schedule: Sequence[Mapping[str, Any]] | None,
        head_lr_mult: float,
        num_workers: int,
        amp: str | None,
        prepare: Mapping[str, Any] | None,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        self.where = f"task {self.name!r}"
        for split in SPLITS:
            if not (isinstance(data, Mapping) and isinstance(data.get(split), Mapping)):
                raise pxframe.PxframeError(
                    f"{self.where}: 'data' needs the key {split!r} with the config of a data set"
                )
        for key in data.keys() - set(SPLITS):
            raise pxframe.PxframeError(f"{self.where}: 'data' takes the keys 'train' and 'test', got {key!r}")
        for key, values, least in (("mean", mean, -math.inf), ("std", std, 0)):
            three = isinstance(values, (list, tuple)) and len(values) == 3
            if not (three and all(isinstance(v, (int, float)) and v > least for v in values)):
                raise pxframe.PxframeError(f"{self.where}: {key!r} must be a number for each channel, got {values!r}")
        if not isinstance(prepare, (Mapping, type(None))):
            raise pxframe.PxframeError(f"{self.where}: 'prepare' must be a dict(type=FUNCTION, ...), got {prepare!r}")
        self.data = {split: dict(data[split]) for split in SPLITS}
        self.epochs, self.batch_size, self.num_workers = epochs, batch_size, num_workers
        self.optimizer, self.schedule, self.amp = optimizer, schedule, amp
        self.head_lr_mult = head_lr_mult
        self.written_by = prepare
        self.mean, self.std = list(mean), list(std)
        self._datasets: dict[tuple[str, str], Any] = {}

    def prepare(self) -> None:
        """Write the data the config asks for, build both data sets, and read an image of each."""
        from pxframe.preserve import seeded
        from pxframe.runner import blaming

        if self.written_by is not None:
            prepare_once(self.written_by, f"{self.where}: 'prepare'")
        for split in SPLITS:
            dataset = self.dataset(split)
            where = f"{self.where}: data[{split!r}]"
            if not len(dataset):
                raise pxframe.PxframeError(f"{where}: there are no images in it")
            with blaming(where), seeded(0, torch.device("cpu")):
                dataset[0]

    def dataset(self, split: str, transforms_of: str = "") -> Any:
        """The data set of ``"train"`` or ``"test"``, built once; its images may be treated as the other's are."""
        key = (split, transforms_of or split)
        if key not in self._datasets:
            from pxframe.runner import blaming

            config = copy.deepcopy(self.data[split])
            if transforms_of:
                config.pop(self.transform_key, None)
                if self.transform_key in self.data[transforms_of]:
                    config[self.transform_key] = copy.deepcopy(self.data[transforms_of][self.transform_key])
            with blaming(f"{self.where}: data[{split!r}]"):
                if self.root_key in config:
                    config[self.root_key] = str(locate(config[self.root_key]))
                self._datasets[key] = self.build_dataset(config, split)
        return self._datasets[key]

    def batches(self, samples: int, batch_size: int, *, seed: int) -> Iterator[tuple[Tensor, Any]]:
        """Training images as the test transforms leave them; see :meth:`pxframe.Task.batches`."""
        from pxframe_tasks.scoring import drawn

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

    def make_runner(self, model: Any, metric: Any, head: str, loop: Any = None, **options: Any) -> Any:
        """A runner for ``model``, whose head's parameters have names that begin with ``head``.

        ``loop`` is the config of a training loop that does not train by epochs: it sees the training images in their
        order, and as the test transforms leave them.
        """
        from pxframe.runner import make_runner

        # mmengine looks for these strings anywhere in a name, the longest one first; a backbone may have a
        # "conv_head." in it, so the backbone is named as well
        mult = {} if self.head_lr_mult == 1 else {"backbone.": 1.0, f"{head}.": self.head_lr_mult}
        return make_runner(
            model,
            train=self.dataset("train", transforms_of="test" if loop else ""),
            test=self.dataset("test"),
            metric=metric,
            epochs=self.epochs,
            batch_size=self.batch_size,
            num_workers=self.num_workers,
            optimizer=self.optimizer,
            lr_mult=mult,
            schedule=self.schedule,
            loop=loop,
            amp=self.amp,
            where=self.where,
            **options,
        )
