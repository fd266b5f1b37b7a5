"""The versions of the packages that a result depends on."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

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
