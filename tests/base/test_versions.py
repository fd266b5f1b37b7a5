"""Versions of what is installed, and of what a caller adds."""

from importlib.metadata import version

from pxframe.base.versions import versions


def test_callers_name_further_packages():
    assert versions().keys() == {"pxframe", "torch", "torchvision", "mmengine"}
    found = versions("timm", "no-such-package-at-all")
    assert found.keys() == versions().keys() | {"timm"}
    assert found["timm"] == version("timm")
