"""What a result depends on: the versions of packages, and the device."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

import torch

from pxframe.base.errors import PxframeError

_PACKAGES = ("pxframe", "torch", "torchvision", "mmengine")


def versions(*more: str) -> dict[str, str]:
    """The installed version of the packages that pxframe stands on and of ``more``, by name, of those installed."""
    found = {}
    for package in (*_PACKAGES, *more):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def checked_device(name: str) -> torch.device:
    """``"cpu"`` or ``"cuda"`` as a device.

    Raises:
        PxframeError: another name, or CUDA where there is none.
    """
    if name not in ("cpu", "cuda"):
        raise PxframeError(f"device must be 'cpu' or 'cuda', got {name!r}")
    if name == "cuda" and not torch.cuda.is_available():
        raise PxframeError("device 'cuda': torch sees no GPU on this machine; use 'cpu'")
    return torch.device(name)
