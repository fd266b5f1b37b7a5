"""Reading weights from a file: no code in it is run, and all of it must fit."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pxframe.data import locate
from pxframe.errors import PxframeError, some

#: Under which keys training scripts store the state dict.
_NESTED = ("state_dict", "model")
#: What wrappers put before every name: DataParallel, and a model that holds the network as its ``backbone``.
_WRAPPERS = ("module.", "backbone.")


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The tensors in a ``torch.save`` or ``.safetensors`` file, on the CPU, by name.

    A state dict may lie at the top or under ``state_dict`` or ``model``. The prefix ``module.`` is taken off;
    of a model that holds a ``backbone`` (as the checkpoints of tasks do), the backbone's weights are taken.

    Raises:
        PxframeError: no such file, damaged, not a state dict, or in need of running code to be read.
    """
    file = locate(path)
    state = _load(file)
    for key in _NESTED:
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
            break
    if not (isinstance(state, Mapping) and state and all(isinstance(v, Tensor) for v in state.values())):
        raise PxframeError(f"checkpoint {file}: has no state dict (tensors by name) at the top or under 'state_dict'")
    for prefix in _WRAPPERS:
        if any(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): t for name, t in state.items() if name.startswith(prefix)}
    return dict(state)


def load_checkpoint(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Load the file at ``path`` into ``model``, every tensor of which must be there, in its shape, and nothing else.

    Raises:
        PxframeError: as :func:`read_checkpoint`; or missing or unexpected names, or other shapes.
    """
    state = read_checkpoint(path)
    wanted = model.state_dict()
    # Files from before PyTorch 0.4.1 have no step counters in batch norm; they affect nothing here.
    missing = [n for n in wanted if n not in state and not n.endswith(".num_batches_tracked")]
    unexpected = [n for n in state if n not in wanted]
    shapes = [
        f"{n} {list(t.shape)} for {list(wanted[n].shape)}"
        for n, t in state.items()
        if n in wanted and t.shape != wanted[n].shape
    ]
    found = {"lacks": missing, "has unexpected": unexpected, "has other shapes:": shapes}
    problems = [f"{what} {some(names)}" for what, names in found.items() if names]
    if problems:
        raise PxframeError(f"checkpoint {path} does not fit the model: it {'; it '.join(problems)}")
    model.load_state_dict({**{n: t for n, t in wanted.items() if n not in state}, **state})


def _load(file: Path) -> object:
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(file)
        with torch.serialization.safe_globals(_mmengine_types()):
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "global" in str(error).lower():  # the name of a class or function
            text = "holds more than tensors and would run code to be read; save its state_dict() alone"
        else:
            text = "is damaged or not a PyTorch file"
        raise PxframeError(f"checkpoint {file}: {text}") from error
    except Exception as error:  # the readers raise whatever the bytes lead them to
        raise PxframeError(f"checkpoint {file}: is damaged or not a PyTorch file ({type(error).__name__})") from error


def _mmengine_types() -> list[Any]:
    """What mmengine's own checkpoints hold besides tensors: histories of logged numbers, as NumPy arrays. All data."""
    import numpy as np
    from mmengine.logging import HistoryBuffer

    def history_method(owner: Any, name: str) -> Any:
        """What a history's file uses ``getattr`` for; anything else of it stays forbidden."""
        if owner is not HistoryBuffer or name.startswith("_"):
            raise pickle.UnpicklingError(f"global getattr of {name!r} would run code")
        return getattr(owner, name)

    history_method.__module__, history_method.__name__, history_method.__qualname__ = "builtins", "getattr", "getattr"
    # Pickles name them by private modules of NumPy, which differ between its versions.
    functions = [np.ones(1).__reduce__()[0], np.float64(1).__reduce__()[0]]
    dtypes = [type(np.dtype(kind)) for kind in ("float64", "float32", "int64", "int32", "bool")]
    return [HistoryBuffer, history_method, np.ndarray, np.dtype, *functions, *dtypes]
