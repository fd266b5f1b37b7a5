"""The file of a ticket: one safetensors file, no pickle, the same bytes for the same ticket.

Tensors:

* ``masks``: the masks one after another, flattened, eight weights a byte (``numpy.packbits``), uint8.
* ``start.NAME``: the value that training starts from, of the parameter or buffer NAME.

The metadata has one entry, ``pxframe``: JSON with sorted keys and no spaces.

* ``format`` and ``version``.
* ``layers``: name, shape and number of kept weights of each layer, in the order of the masks.
* ``meta``: the ticket's meta.
* ``sha256``: the digest of all other entries and of the tensors' names, shapes, dtypes and bytes. What it leaves out,
  the spelling of the safetensors header, must be the one way that safetensors spells it: every byte is checked.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from pxframe.base.errors import PxframeError
from pxframe.files.writing import replacing

FORMAT, VERSION = "pxframe-ticket", 2
_START = "start."
_KEY = "pxframe"
_LARGEST = 2**31  # a longer side of a weight is no weight's; torch overflows at 2**63 elements


def save(path: str | Path, masks: Mapping[str, Tensor], meta: Mapping[str, Any], start: Mapping[str, Tensor]) -> None:
    """Write bool CPU ``masks``, JSON-able ``meta`` and CPU tensors ``start``; a file is replaced whole or not at all.

    Raises:
        PxframeError: ``meta`` is not JSON-able, safetensors cannot hold a value of ``start``, or the file cannot be
            written.
    """
    try:
        meta_json = _json(meta)
    except (TypeError, ValueError, RecursionError) as error:
        raise PxframeError(f"cannot write {path}: the ticket's meta does not fit in JSON: {error}") from error
    try:
        data = _encode(masks, json.loads(meta_json), start)
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        line = (str(error).splitlines() or [""])[0]
        raise PxframeError(f"cannot write {path}: safetensors refuses the ticket's start: {line}") from error
    try:
        with replacing(path) as scratch:
            scratch.write_bytes(data)
    except OSError as error:
        raise PxframeError(f"cannot write {path}: {error.strerror or error}") from error


def load(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, Tensor]]:
    """Read the masks (bool, CPU, in their saved order), the meta and the start of the ticket at ``path``.

    Raises:
        PxframeError: there is no such file, or it is no ticket, a damaged one, or one of another version.
    """
    try:
        data = Path(path).read_bytes()
    except (OSError, ValueError) as error:
        raise PxframeError(f"cannot read ticket {path}: {getattr(error, 'strerror', None) or error}") from error
    try:
        return _decode(data)
    except PxframeError as error:
        raise PxframeError(f"{path} {error}") from error
    except (SafetensorError, AttributeError, LookupError, TypeError, ValueError, RuntimeError) as error:
        # A digest that fits says nothing about who wrote the file: its content is still not to be trusted.
        raise PxframeError(f"{path} is not a well-formed ticket ({type(error).__name__}); make it anew") from error


def fingerprint(weights: Mapping[str, Tensor]) -> str:
    """SHA-256, in hexadecimal, of the names, shapes, dtypes and bytes of tensors of any dtype and device.

    The order of the tensors makes no difference.
    """
    digest = hashlib.sha256()
    for name in sorted(weights):
        weight = weights[name].detach().cpu().contiguous()
        digest.update(json.dumps([name, list(weight.shape), str(weight.dtype)]).encode())
        # Through bytes, since numpy knows no bfloat16; flat first, since a scalar cannot change its item size.
        digest.update(weight.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _encode(masks: Mapping[str, Tensor], meta: Any, start: Mapping[str, Tensor]) -> bytes:
    flat = np.concatenate([mask.reshape(-1).numpy() for mask in masks.values()])
    # Copies: safetensors refuses tensors that share memory, as the values of tied weights do.
    tensors = {_START + name: value.clone(memory_format=torch.contiguous_format) for name, value in start.items()}
    tensors["masks"] = torch.from_numpy(np.packbits(flat))
    layers = [[name, list(mask.shape), int(mask.count_nonzero())] for name, mask in masks.items()]
    head = {"format": FORMAT, "version": VERSION, "layers": layers, "meta": meta}
    return safetensors.torch.save(tensors, {_KEY: _json({**head, "sha256": _digest(head, tensors)})})


def _decode(data: bytes) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, Tensor]]:
    head = _head(data)
    sha256 = head.pop("sha256", None)
    tensors = safetensors.torch.load(data)
    if _digest(head, tensors) != sha256:
        raise PxframeError("is damaged: its content does not match its sha256; copy or make it anew")
    packed = tensors.pop("masks").numpy()
    layers, meta = head["layers"], head["meta"]
    for layer in layers:
        _check_layer(layer)
    sizes = [math.prod(shape) for _, shape, _ in layers]
    if packed.dtype != np.uint8 or packed.ndim != 1 or packed.size != -(-sum(sizes) // 8):
        raise PxframeError(f"contradicts itself: {packed.size} bytes of masks for {sum(sizes)} weights; make it anew")
    if len({name for name, _, _ in layers}) != len(layers):
        raise PxframeError("contradicts itself: two of its layers have one name; make it anew")
    if not isinstance(meta, dict) or any(not name.startswith(_START) for name in tensors):
        raise ValueError("an unknown entry")
    flat = torch.from_numpy(np.unpackbits(packed, count=sum(sizes))).bool()
    masks = {}
    for (name, shape, kept), part in zip(layers, flat.split(sizes), strict=True):
        if int(part.count_nonzero()) != kept:
            raise PxframeError(
                f"contradicts itself: {name} keeps {int(part.count_nonzero())} weights by its mask, "
                f"{kept} by its count; make it anew"
            )
        masks[name] = part.reshape(shape).clone()
    return masks, meta, {name.removeprefix(_START): value for name, value in tensors.items()}


def _check_layer(layer: Any) -> None:
    name, shape, kept = layer
    if not isinstance(name, str) or not name or not name.isprintable():
        raise PxframeError(f"has a layer named {name!r}, which is no name of a parameter; make it anew")
    if type(kept) is not int or not isinstance(shape, list) or len(shape) > 64:
        raise ValueError("a damaged layer")
    if any(type(side) is not int or not 0 <= side < _LARGEST for side in shape):
        raise PxframeError(f"has a layer {name} with the shape {str(shape)[:80]}; make it anew")


def _head(data: bytes) -> dict[str, Any]:
    """The ticket's entry in the safetensors header, whose spelling is checked to the last byte."""
    if not data:
        raise PxframeError("is empty; copy or make the ticket anew")
    length = int.from_bytes(data[:8], "little")
    text = data[8 : 8 + length] if length <= len(data) - 8 else b""
    try:
        header = json.loads(text)
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        if data.startswith((b"PK\x03\x04", b"\x80\x02")):
            raise PxframeError("is a pickle (torch.save), which may run code and is not opened; use Ticket.save")
        raise PxframeError("is no safetensors file, or a truncated or damaged one; copy or make the ticket anew")
    try:
        metadata = header["__metadata__"]
        head = json.loads(metadata[_KEY])
        known = head["format"] == FORMAT and type(head["version"]) is int
    except (LookupError, TypeError, ValueError, RecursionError):
        known = False
    if not known:
        raise PxframeError("is a safetensors file but no pxframe ticket, or its header is damaged; check the path")
    version = head["version"]
    if version < VERSION:
        raise PxframeError(f"is a ticket of format version {version}, which is no longer read; prune again to make it")
    if version > VERSION:
        raise PxframeError(f"is a ticket of format version {version}, this pxframe reads {VERSION}; update pxframe")
    # safetensors pads the header with spaces to a multiple of eight bytes.
    spelled = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    if text != spelled + b" " * (-len(spelled) % 8) or metadata != {_KEY: _json(head)}:
        raise PxframeError("is damaged: its header was altered; copy or make the ticket anew")
    return head


def _digest(head: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    return hashlib.sha256((_json(head) + fingerprint(tensors)).encode()).hexdigest()


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
