"""What a model is given: one tensor, a tuple or list of arguments, or a dict of keyword arguments.

Nothing else in pxframe knows these forms. Each argument may be a tensor, a plain value, or a dict, list or tuple of
them. The first dimension of every tensor is the batch.

One kind of batch cannot be divided into samples: lists of tensors that differ in their first dimension, such as images
of several sizes with their boxes. Methods that never divide a batch take such a batch as it is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from pxframe.base.errors import PxframeError, some


def arguments(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments, and the keyword arguments, that a model is called with."""
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    return (tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,)), {}


def mapped(function: Callable[[Tensor], Any], value: Any) -> Any:
    """``value`` with every tensor in it replaced: in dicts, lists, tuples and data classes, at any depth."""

    def at(leaf: Any) -> Any:
        if isinstance(leaf, Tensor):
            return function(leaf)
        if dataclasses.is_dataclass(leaf) and not isinstance(leaf, type):
            fields = [f.name for f in dataclasses.fields(leaf) if f.init]
            return dataclasses.replace(leaf, **{name: mapped(function, getattr(leaf, name)) for name in fields})
        if isinstance(leaf, Mapping):  # a subclass of dict, which torch takes for a plain value
            return type(leaf)({key: mapped(function, part) for key, part in leaf.items()})  # type: ignore[call-arg]
        return leaf

    return pytree.tree_map(at, value)


def leaves(value: Any) -> list[Tensor]:
    """The tensors in ``value``, in the order in which :func:`mapped` takes them."""
    found: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    mapped(note, value)
    return found


def filled(inputs: Any, tensors: Iterable[Tensor]) -> Any:
    """``inputs`` with other tensors in the places of its own, which :func:`leaves` gives."""
    queue = iter(tensors)
    return mapped(lambda _: next(queue), inputs)


def noise_like(inputs: Any, generator: torch.Generator) -> Any:
    """``inputs`` with normal numbers of the same spread, at least 1, in each floating-point tensor; others as they are.

    Args:
        generator: on the CPU, so that the numbers do not depend on the device.
    """

    def drawn(like: Tensor) -> Tensor:
        if not like.is_floating_point():
            return like
        return torch.randn(like.shape, generator=generator).to(like) * like.std(correction=0).clamp(min=1.0)

    return mapped(drawn, inputs)


def starting(inputs: Any) -> list[bool]:
    """For each tensor, whether paths start there: at floating-point tensors, or at all if there are none.

    Integers beside them are read as data: words, classes, masks, steps of time. So are several inputs of integers, if
    the model has an embedding for paths to start at (see :mod:`pxframe.engine.tracing.trace`).
    """
    real = [tensor.is_floating_point() for tensor in leaves(inputs)]
    return real if any(real) else [True] * len(real)


def starting_tensors(inputs: Any) -> list[Tensor]:
    """The tensors that paths start at."""
    return [tensor for tensor, starts in zip(leaves(inputs), starting(inputs), strict=True) if starts]


def dtype_of(inputs: Any) -> torch.dtype:
    """The dtype of the tensors that paths start at; float64 if any of them has it."""
    dtypes = [tensor.dtype for tensor in starting_tensors(inputs)]
    return torch.float64 if torch.float64 in dtypes else dtypes[0]


def check_inputs(inputs: Any, where: str) -> None:
    """Refuse inputs that no model can be called with, or without a sample.

    Raises:
        PxframeError: begins with ``where``.
    """
    tensors = leaves(inputs) if isinstance(inputs, (Tensor, tuple, list, Mapping)) else []
    if not tensors:
        raise PxframeError(
            f"{where}: the input must be a tensor, or a tuple, list or dict with tensors in it (model(*inputs) or "
            f"model(**inputs)), got {type(inputs).__name__} for the input, without a tensor"
        )
    if isinstance(inputs, Mapping) and not all(isinstance(key, str) for key in inputs):
        raise PxframeError(f"{where}: a dict of inputs is given to the model by name, so its keys must be strings")
    if divisible(inputs) == 0 or (isinstance(inputs, Tensor) and inputs.ndim == 0):
        raise PxframeError(
            f"{where} has no sample: its input has shape {list(tensors[0].shape)}; leave such batches out"
        )


# --- samples ------------------------------------------------------------------------------------------------------


def divisible(inputs: Any) -> int | None:
    """The number of samples, or None if the tensors differ in their first dimension."""
    sizes = {len(tensor) if tensor.ndim else None for tensor in leaves(inputs)}
    return sizes.pop() if len(sizes) == 1 else None


def samples(inputs: Any) -> int:
    """The number of samples.

    Raises:
        PxframeError: the tensors differ in their first dimension.
    """
    number = divisible(inputs)
    if number is None:
        advice = "give each tensor one entry a sample, and a number that all samples share as a plain number"
        if _has_list(inputs):
            advice = (
                "this method needs one tensor for the whole batch: prune the part of the model that takes one "
                "(model.backbone), or use a method that reads no paths"
            )
        raise PxframeError(f"{described(inputs)} differ in their first dimension, which must be the batch; {advice}")
    return number


def split(inputs: Any, size: int | list[int]) -> list[Any]:
    """Parts of at most ``size`` samples, or of these sizes; views."""
    number = samples(inputs)
    parts = [tensor.split(size) for tensor in leaves(inputs)]
    return [filled(inputs, tensors) for tensors in zip(*parts, strict=True)] if number else []


def first(inputs: Any, number: int = 1) -> Any:
    """The first samples; views.

    Raises:
        PxframeError: the tensors differ in their first dimension.
    """
    samples(inputs)
    return mapped(lambda tensor: tensor[:number], inputs)


def few(inputs: Any, number: int) -> Any:
    """The first samples, or the whole batch where it cannot be divided; for checks that need only some of the data.

    A list among the arguments may hold one entry for each sample, so such a batch is not divided.
    """
    return first(inputs, number) if is_cut(inputs) else inputs


def is_cut(inputs: Any) -> bool:
    """Whether :func:`few` divides a batch."""
    return divisible(inputs) is not None and not _has_list(inputs)


def _has_list(inputs: Any) -> bool:
    """Whether there is a list among the arguments, or in one of them."""
    parts = pytree.tree_leaves(arguments(inputs), is_leaf=lambda part: isinstance(part, list))
    return any(isinstance(part, list) for part in parts)


# --- descriptions -------------------------------------------------------------------------------------------------


def described(inputs: Any) -> str:
    """``"inputs of shape [2, 3, 8, 8] and torch.float32"``, one after the other if there are several."""
    texts = [f"{list(tensor.shape)} and {tensor.dtype}" for tensor in leaves(inputs)]
    return f"inputs of shape {some(texts, most=6)}"


def shapes(inputs: Any) -> Any:
    """The shape of one sample, without the batch, in the place of each tensor; JSON-able."""
    if isinstance(inputs, Tensor):
        return list(inputs.shape[1:])
    if isinstance(inputs, Mapping):
        return {str(key): shapes(part) for key, part in inputs.items()}
    if isinstance(inputs, (tuple, list)):
        return [shapes(part) for part in inputs]
    return inputs if isinstance(inputs, (bool, int, float, str, type(None))) else type(inputs).__name__


def signature(inputs: Any) -> Hashable:
    """The same for inputs that give the same graph: of equal structure, shapes, dtypes, devices and plain values."""
    marked = mapped(lambda t: ("tensor", tuple(t.shape), t.dtype, t.device), inputs)
    return _hashable(marked)


def _hashable(value: Any) -> Hashable:
    if isinstance(value, Mapping):
        return type(value), tuple((key, _hashable(part)) for key, part in value.items())
    if isinstance(value, (tuple, list)):
        return type(value), tuple(map(_hashable, value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return type(value), tuple(_hashable(getattr(value, f.name)) for f in dataclasses.fields(value))
    if isinstance(value, np.ndarray):  # repr leaves out the middle of a large one
        return np.ndarray, value.shape, str(value.dtype), value.tobytes()
    return type(value), value if isinstance(value, Hashable) else repr(value)
