"""Importing mmseg where mmcv has no compiled operators, and without its import-time warnings."""

from __future__ import annotations

import importlib.util
import sys
import types
import warnings
from importlib.machinery import ModuleSpec
from typing import Any

_EXTENSION = "mmcv._ext"


class _NoOperators(types.ModuleType):
    """Has an operator of every name, which fails when called."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def operator(*args: Any, **kwargs: Any) -> Any:
            raise RuntimeError(f"the operator {name!r} needs full mmcv; mmcv-lite, which is installed, has none")

        return operator


def import_mmseg() -> None:
    """Import mmseg's models, datasets and metrics, so that their registries are filled.

    ``mmseg.models`` imports all of mmcv's operators, though few models use any. Where mmcv comes without them, a
    stand-in takes their place; with full mmcv nothing is replaced.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if _EXTENSION not in sys.modules and importlib.util.find_spec(_EXTENSION) is None:
            stand_in = _NoOperators(_EXTENSION)
            # A spec without a loader: mmengine looks for it to see whether mmcv has operators, and shall see none.
            stand_in.__spec__ = ModuleSpec(_EXTENSION, loader=None)
            sys.modules[_EXTENSION] = stand_in
        import mmseg.datasets
        import mmseg.evaluation
        import mmseg.models  # noqa: F401
