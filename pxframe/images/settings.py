"""The config keys of a task that trains: the settings of training, and the data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import InitVar, dataclass
from typing import Any, ClassVar

from pxframe.base.errors import PxframeError
from pxframe.training.settings import Training

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)

SPLITS = ("train", "test")


@dataclass(kw_only=True, eq=False)
class TaskSettings(Training):
    """The config keys of a :class:`pxframe.TrainedTask`.

    They are those of :class:`pxframe.training.settings.Training`, and the data.

    Args:
        data: ``dict(train=..., test=...)``; each value is the config of a data set.
        prepare: ``dict(type="package.function", root=FOLDER, **options)``: a function that writes the data. It is
            called only if FOLDER is not there.
        mean: a number for each channel (RGB, 0 to 255) that is subtracted from the pixels.
        std: a number for each channel that the pixels are then divided by.
    """

    name: ClassVar[str] = ""

    data: Mapping[str, Any]
    prepare: InitVar[Mapping[str, Any] | None] = None
    mean: Sequence[float] = IMAGENET_MEAN
    std: Sequence[float] = IMAGENET_STD

    def __post_init__(self, prepare: Mapping[str, Any] | None) -> None:
        super().__post_init__()
        data, where = self.data, self.where
        for split in SPLITS:
            if not (isinstance(data, Mapping) and isinstance(data.get(split), Mapping)):
                raise PxframeError(f"{where}: 'data' needs the key {split!r} with the config of a data set")
        for key in data.keys() - set(SPLITS):
            raise PxframeError(f"{where}: 'data' takes the keys 'train' and 'test', got {key!r}")
        for key, values, least in (("mean", self.mean, -math.inf), ("std", self.std, 0)):
            three = isinstance(values, (list, tuple)) and len(values) == 3
            if not (three and all(isinstance(v, (int, float)) and v > least for v in values)):
                raise PxframeError(f"{where}: {key!r} must be a number for each channel, got {values!r}")
        if not isinstance(prepare, (Mapping, type(None))):
            raise PxframeError(f"{where}: 'prepare' must be a dict(type=FUNCTION, ...), got {prepare!r}")
        self.data = {split: dict(data[split]) for split in SPLITS}
        self.written_by = prepare
        self.mean, self.std = list(self.mean), list(self.std)

    @property
    def where(self) -> str:
        return f"task {self.name!r}"
