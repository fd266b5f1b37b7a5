"""A slimmed network in a folder, for others to load without this library.

``weights.safetensors`` is its state dict. ``slim.json`` says what the state dict does not: the attributes of modules
that differ from those of the dense network (``attributes``: by module, as in ``{"conv1": {"out_channels": 12}}``), and
what the network was made from (``made_from``). ``program.pt2`` is the whole network as torch.export writes it, if it
can. (``onnx_file`` writes ``program.onnx``.)
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from pxframe.base.errors import PxframeError
from pxframe.files.writing import read_json, replacing, write_json
from pxframe.running.inputs import arguments
from pxframe.running.undisturbed import evaluating
from pxframe.slimming.build import Slim
from pxframe.slimming.groups import LAYERS
from pxframe.slimming.quiet import quiet

WEIGHTS, DESCRIPTION, PROGRAM, ONNX = "weights.safetensors", "slim.json", "program.pt2", "program.onnx"
#: Raised when the description means something else than before.
_FORMAT = 1

_log = logging.getLogger(__name__)


def save_slim(
    folder: str | Path, slim: Slim, model: nn.Module, example: Any, made_from: Mapping[str, Any] | None = None
) -> list[Path]:
    """Write a slimmed network, and return the files.

    Args:
        folder: made if it is not there; files of the same names are replaced.
        model: the dense network that it was made from.
        example: inputs, for ``program.pt2``. With two samples or more in it, the program takes batches of any size, if
            the network allows that.
        made_from: whatever helps to build the dense network again; JSON-able.
    """
    root = Path(folder)
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PxframeError(f"cannot make the folder {str(root)!r}: {error.strerror}") from error
    for name in (PROGRAM, ONNX):  # those of another network would be taken for this one's
        (root / name).unlink(missing_ok=True)
    tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in slim.model.state_dict().items()}
    with replacing(root / WEIGHTS) as scratch:
        scratch.write_bytes(save(tensors))
    description = {
        "format": _FORMAT,
        "attributes": attributes(model, slim.model),
        "channels": slim.channels,
        "whole": slim.whole,
        "made_from": dict(made_from or {}),
    }
    write_json(root / DESCRIPTION, description)
    files = [root / WEIGHTS, root / DESCRIPTION]
    if _save_program(root / PROGRAM, slim.model, example):
        files.append(root / PROGRAM)
    return files


def load_slim(folder: str | Path, model: nn.Module) -> nn.Module:
    """Turn the dense ``model`` into the slimmed one that ``save_slim`` wrote, in place, and return it.

    Raises:
        PxframeError: a file is missing or damaged, or was made from another model, or the files do not belong
            together; ``model`` is then unchanged.
    """
    root = Path(folder)
    description = read_json(root / DESCRIPTION)
    if description.get("format") != _FORMAT or not isinstance(description.get("attributes"), dict):
        raise PxframeError(f"{root / DESCRIPTION} does not describe a slimmed network of format {_FORMAT}")
    try:
        tensors = load_file(root / WEIGHTS)
    except Exception as error:  # a file that is missing, cut short or something else
        raise PxframeError(f"{root / WEIGHTS} cannot be read: {error}") from None
    modules = dict(model.named_modules(remove_duplicate=False))  # the file has a shared module under all of its names
    wanted = {*description["attributes"], *(name.rpartition(".")[0] for name in tensors)}
    if strange := sorted(wanted - modules.keys()):
        raise PxframeError(f"{root}: the model has no module {strange[0]!r}; build the one that was slimmed")
    if missing := sorted(model.state_dict().keys() - tensors.keys()):
        raise PxframeError(
            f"{root}: it has no tensor {missing[0]!r}, which the model has; build the one that was slimmed"
        )
    _check(root, modules, description["attributes"], tensors)
    parameters = dict(model.named_parameters(remove_duplicate=False))
    made: dict[nn.Parameter | None, nn.Parameter] = {}
    for name, values in description["attributes"].items():
        for key, value in values.items():
            setattr(modules[name], key, tuple(value) if isinstance(value, list) else value)
    for name, tensor in tensors.items():
        owner, _, key = name.rpartition(".")
        if key in modules[owner]._buffers:
            modules[owner]._buffers[key] = tensor
            continue
        before = parameters.get(name, parameters.get(f"{owner}.weight"))  # a new bias is trained as its weight is
        trained = tensor.is_floating_point() and (before is None or before.requires_grad)
        parameter = nn.Parameter(tensor, trained)
        if name in parameters:  # what was one parameter under two names is one again
            parameter = made.setdefault(parameters[name], parameter)
        setattr(modules[owner], key, parameter)
    return model


def _check(
    root: Path, modules: Mapping[str, nn.Module], changes: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> None:
    """Refuse what is no description, or belongs to other tensors or another model."""
    for name, values in changes.items():
        own = vars(modules[name])
        if not isinstance(values, dict) or not all(_alike(v, own.get(k)) for k, v in values.items()):
            raise PxframeError(f"{root / DESCRIPTION} is damaged, or of another model: {name!r} has no such attributes")
    for name, tensor in tensors.items():
        owner, _, key = name.rpartition(".")
        module = modules[owner]
        if getattr(module, key, None) is not None and key not in {*module._parameters, *module._buffers}:
            raise PxframeError(f"{root / WEIGHTS} is damaged, or of another model: {name!r} is no tensor there")
        if key == "weight" and isinstance(module, LAYERS):
            wanted = _shape({**vars(module), **changes.get(owner, {})}, module)
            if tuple(tensor.shape) != wanted:
                raise PxframeError(
                    f"{root}: {name!r} is {list(tensor.shape)} and should be {list(wanted)}; build the model that was "
                    f"slimmed, or write the folder anew"
                )


def _shape(attributes: Mapping[str, Any], layer: nn.Module) -> tuple[int, ...]:
    """Of the weight of a layer with such attributes."""
    if isinstance(layer, nn.Linear):
        return attributes["out_features"], attributes["in_features"]
    sizes, groups = (attributes["out_channels"], attributes["in_channels"]), attributes["groups"]
    first, second = sizes[::-1] if isinstance(layer, nn.modules.conv._ConvTransposeNd) else sizes
    return first, second // (groups or 1), *attributes["kernel_size"]


def _alike(value: Any, own: Any) -> bool:
    """Whether a value may take the place of a module's own."""
    kinds = (str, (int, float), (tuple, list))
    return _is_plain(value) and _is_plain(own) and any(isinstance(value, k) and isinstance(own, k) for k in kinds)


def attributes(dense: nn.Module, small: nn.Module) -> dict[str, dict[str, Any]]:
    """The numbers that modules hold, such as ``out_channels`` and ``num_heads``, where they are others."""
    modules, found = dict(dense.named_modules()), {}
    for name, module in small.named_modules():
        before = vars(modules[name])
        changed = {
            key: value for key, value in vars(module).items() if _is_plain(value) and before.get(key, value) != value
        }
        changed.pop("training", None)
        if changed:
            found[name] = changed
    return found


def _is_plain(value: Any) -> bool:
    return isinstance(value, (int, float, str)) or (
        isinstance(value, (tuple, list)) and all(isinstance(v, (int, float)) for v in value)
    )


def _save_program(path: Path, model: nn.Module, example: Any) -> bool:
    """Write the network in eval mode as a program of torch.export; false, with a warning, if torch cannot."""
    args, kwargs = arguments(example)
    try:
        with quiet(), torch.no_grad(), evaluating(model), replacing(path) as scratch:
            program = torch.export.export(model, args, kwargs, dynamic_shapes=any_batch(args, kwargs))
            with scratch.open("wb") as file:
                torch.export.save(program, file)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever it meets in a model that it cannot trace
        reason = str(error).strip().partition("\n")[0]
        _log.warning("no %s: torch.export cannot trace the model (%s: %s)", path.name, type(error).__name__, reason)
        return False
    return True


def any_batch(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """The first dimension of tensors may differ, where torch can find out itself if that holds (2.6 and later)."""
    auto = getattr(torch.export.Dim, "AUTO", None)
    if auto is None or not all(isinstance(x, torch.Tensor) for x in (*args, *kwargs.values())):
        return None
    return {name: {0: auto} for name in kwargs} if kwargs else tuple({0: auto} for _ in args)
