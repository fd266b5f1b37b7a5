"""Images and their targets as mmengine wants them: a data set of (image, target), and its checks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from mmengine.registry import DATASETS, TRANSFORMS
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, Subset
from torchvision.datasets.folder import default_loader
from torchvision.transforms.v2 import Compose
from torchvision.transforms.v2 import functional as F

from pxframe.base.errors import PxframeError
from pxframe.images.drawing import drawn


class Images(Dataset):
    """A data set of (image, target) pairs, as dicts that a runner's batches are made of.

    An item has ``inputs``, a uint8 RGB tensor ``[3, H, W]``, and ``data_samples``, the target as a tensor: int64 for
    whole numbers, float32 for others, of any shape. Images stay in bytes until they are on the model's device.

    Greyscale, palette and CMYK images become RGB, and an alpha channel is dropped, as torchvision's folders do it.
    Images of 16 or 32 bits a channel are refused: Pillow would clip them to 255.

    Args:
        config: the data set, ``dict(type="torchvision.datasets.ImageFolder", root=...)``, and two keys more:
            ``transform``, a list of configs that are applied in their order, and ``samples``, which keeps that many
            images, drawn evenly over the classes and always the same.

    Attributes:
        classes: names of the classes, where the data set has them, else None.
        targets: class number of every image, where the data set lists whole numbers, else None.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        options = dict(config)
        transform, samples = options.pop("transform", []), options.pop("samples", None)
        self.transform = Compose([TRANSFORMS.build(dict(t)) for t in transform]) if transform else None
        self.samples = DATASETS.build(options)
        if getattr(self.samples, "loader", None) is default_loader:
            self.samples.loader = _opened  # torchvision's own converts, and so clips, before anybody can see it
        self.classes = getattr(self.samples, "classes", None)
        self.targets = _class_numbers(self.samples)
        if samples is not None:
            chosen = sorted(drawn(len(self.samples), samples, self.targets, seed=0))
            self.targets = None if self.targets is None else [self.targets[i] for i in chosen]
            self.samples = Subset(self.samples, chosen)
        self.metainfo = {"classes": self.classes}

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        image, target = self.samples[index]
        if isinstance(image, Image.Image):
            image = as_rgb(image)
        if self.transform is not None:
            image = self.transform(image)
        if isinstance(image, Image.Image):
            image = as_rgb(image)  # a transform may have made it grey
        if isinstance(image, (Image.Image, np.ndarray)):
            image = F.to_image(image).as_subclass(Tensor)
        check_bytes(image)
        return {"inputs": image, "data_samples": _target(target)}


def as_rgb(image: Image.Image) -> Image.Image:
    """The image with three channels of 8 bits.

    Raises:
        PxframeError: it has 16 or 32 bits a channel, which Pillow would clip to 255.
    """
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        name = getattr(image, "filename", "")
        raise PxframeError(
            f"{f'the image {name}' if name else 'an image'} has more than 8 bits a channel (Pillow's mode "
            f"{image.mode!r}); convert such images to 8 bits"
        )
    return image.convert("RGB")


def check_bytes(image: Any) -> None:
    """Refuse an image that is not a uint8 tensor ``[3, H, W]``: the model's preprocessor normalises values 0 to 255."""
    if not isinstance(image, Tensor):
        raise PxframeError(f"an image must be a Pillow image, an array or a tensor, got {type(image).__name__}")
    if image.dtype != torch.uint8:
        raise PxframeError(
            f"the transforms give images of {image.dtype}, and they must stay uint8, from 0 to 255: leave out "
            f"ToTensor, ToDtype and Normalize; the keys 'mean' and 'std' do their work"
        )
    if image.ndim != 3 or len(image) != 3:
        raise PxframeError(f"an image must have the shape [3, H, W], got {list(image.shape)}")


def _opened(path: str) -> Image.Image:
    with Image.open(path) as image:
        return as_rgb(image)


def _class_numbers(dataset: Any) -> list[int] | None:
    """What torchvision's data sets call ``targets``, or ``labels``: lists, arrays or tensors of whole numbers."""
    for key in ("targets", "labels", "_labels"):
        try:
            values = np.asarray(getattr(dataset, key, None))
        except (TypeError, ValueError):  # no array can be made of them
            continue
        if values.ndim == 1 and values.dtype.kind in "iu" and len(values) == len(dataset):
            return values.tolist()
    return None


def _target(value: Any) -> Tensor:
    target = torch.as_tensor(value)
    return target.float() if target.is_floating_point() else target.long()
