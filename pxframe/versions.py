"""Versions of what a result depends on."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

_PACKAGES = ("pxframe", "torch", "torchvision", "timm", "mmengine", "mmsegmentation")


def versions() -> dict[str, str]:
    """Installed version by package, of those installed."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
