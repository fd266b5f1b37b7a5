"""Reading weights from a file: no code of the file is run unless the user trusts it, and all weights must fit."""

from __future__ import annotations

import os
import pickle
from collections.abc import Collection, Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pxframe.base.errors import PxframeError, some
from pxframe.files.paths import locate

#: Under which keys training scripts store the state dict.
_NESTED = ("state_dict", "model")
#: What DataParallel puts before every name.
_PARALLEL = "module."
#: What models that hold the network as a part among others put before its names.
_HOLDERS = ("backbone.", "encoder.", "model.")

_trusted: ContextVar[bool] = ContextVar("trusted", default=False)


def trust() -> None:
    """From now on, in this context (:mod:`contextvars`), read files that run code; ``--trust-checkpoint`` calls it."""
    _trusted.set(True)


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The tensors in a ``torch.save`` or ``.safetensors`` file, on the CPU, by their names in the file.

    The state dict may lie at the top of the file or under ``state_dict`` or ``model``. A file that is trusted
    (:func:`~pxframe.plugin.checkpoint.trust`) may hold a module there instead.

    Raises:
        PxframeError: there is no such file, it is damaged, it holds no state dict, or reading it would run code.
    """
    file = locate(path)
    state = _load(file)
    for key in _NESTED:
        if isinstance(state, Mapping) and isinstance(state.get(key), (Mapping, nn.Module)):
            state = state[key]
            break
    if isinstance(state, nn.Module):
        state = state.state_dict()
    if not (isinstance(state, Mapping) and state and all(isinstance(v, Tensor) for v in state.values())):
        raise PxframeError(f"checkpoint {file}: has no state dict (tensors by name) at the top or under 'state_dict'")
    return dict(state)


def unwrap(
    state: Mapping[str, Tensor], wanted: Collection[str], holders: Collection[str] = ()
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Split ``state`` into the network's own tensors, without the prefix of a wrapper, and the rest.

    A prefix is any chain of ``module.``, ``backbone.``, ``encoder.``, ``model.`` and ``holders``, or none. The chain is
    chosen that leaves the most of the ``wanted`` names. The rest is what lies beside the network in the file: a
    projection head, a decode head, a text tower.

    Args:
        state: tensors by the names in the file.
        wanted: the network's names.
        holders: further prefixes that the files of one provider use, each with its dot.
    """
    parts = _parts(dict(state), {}, (*holders, *_HOLDERS))
    return max(parts, key=lambda pair: len(pair[0].keys() & set(wanted)))


def _parts(
    state: dict[str, Tensor], rest: dict[str, Tensor], holders: Collection[str]
) -> Iterator[tuple[dict[str, Tensor], dict[str, Tensor]]]:
    yield state, rest
    if any(name.startswith(_PARALLEL) for name in state):
        yield from _parts({name.removeprefix(_PARALLEL): t for name, t in state.items()}, rest, holders)
    for prefix in holders:
        part = {name.removeprefix(prefix): t for name, t in state.items() if name.startswith(prefix)}
        if part:
            beside = {name: t for name, t in state.items() if not name.startswith(prefix)}
            yield from _parts(part, {**rest, **beside}, holders)


def load_checkpoint(model: nn.Module, path: str | os.PathLike[str], holders: Collection[str] = ()) -> None:
    """Load the file at ``path`` into ``model``: it must hold every tensor of the model, in its shape, and no other.

    The names in the file may have a wrapper's prefix, see :func:`~pxframe.plugin.checkpoint.unwrap`, to which
    ``holders`` go; tensors beside the network are left out.

    Raises:
        PxframeError: as :func:`~pxframe.plugin.checkpoint.read_checkpoint`; or missing or unexpected names, or other
            shapes.
    """
    state, _ = unwrap(read_checkpoint(path), model.state_dict().keys(), holders)
    fit(model, state, path)


def fit(
    model: nn.Module, state: Mapping[str, Tensor], path: str | os.PathLike[str], fresh: tuple[str, ...] = ()
) -> None:
    """Load ``state``, read from ``path``, into ``model``; names that begin with one of ``fresh`` need not be in it.

    Raises:
        PxframeError: missing or unexpected names, or other shapes.
    """
    wanted = model.state_dict()
    # Files from before PyTorch 0.4.1 have no step counters in batch norm; they affect nothing here.
    spared = {n for n in wanted if n.endswith(".num_batches_tracked") or n.startswith(fresh)}
    missing = [n for n in wanted if n not in state and n not in spared]
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
        if _trusted.get():
            return torch.load(file, map_location="cpu", weights_only=False)
        with torch.serialization.safe_globals(_mmengine_types()):
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # the readers raise whatever the bytes lead them to
        raise PxframeError(f"checkpoint {file}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    text = str(error)
    # A pickle names a class or function; a TorchScript archive is a program.
    unpickling = isinstance(error, pickle.UnpicklingError)
    if (unpickling and "global" in text.lower()) or "TorchScript archives" in text:
        return (
            "holds more than tensors and would run code to be read; save its state_dict() alone, or pass "
            "--trust-checkpoint where you trust whoever made it"
        )
    if isinstance(error, (ImportError, AttributeError)):
        return f"needs code that is not here: {text.splitlines()[0]}"
    return f"is damaged or not a PyTorch file ({type(error).__name__})"


def _mmengine_types() -> list[Any]:
    """The types in mmengine's own checkpoints besides tensors: histories of logged numbers, as NumPy arrays.

    A user may give such a checkpoint wherever weights are read. None of these types runs code.
    """
    import numpy as np
    from mmengine.logging import HistoryBuffer

    def history_method(owner: Any, name: str) -> Any:
        """Stand in for the ``getattr`` in a history's file; any other use of ``getattr`` stays forbidden."""
        if owner is not HistoryBuffer or name.startswith("_"):
            raise pickle.UnpicklingError(f"global getattr of {name!r} would run code")
        return getattr(owner, name)

    history_method.__module__, history_method.__name__, history_method.__qualname__ = "builtins", "getattr", "getattr"
    # Pickles name them by private modules of NumPy, which differ between its versions.
    functions = [np.ones(1).__reduce__()[0], np.float64(1).__reduce__()[0]]
    dtypes = [type(np.dtype(kind)) for kind in ("float64", "float32", "int64", "int32", "bool")]
    return [HistoryBuffer, history_method, np.ndarray, np.dtype, *functions, *dtypes]
