"""The file of a ticket: one safetensors file, no pickle, the same bytes for the same ticket.

It holds two uint8 tensors, the values of the ticket's ``start`` if there are any, and one metadata entry:

* ``masks``: the masks one after another, flattened, eight weights a byte (``numpy.packbits``).
* ``layers``: zlib-compressed JSON: the layers' names, shapes and kept counts, in the order of the masks, and the
  entries of the ticket's ``meta`` that are long (lists over layers, mostly).
* ``start.NAME``: the value that training starts from, of the parameter or buffer NAME.
* metadata ``pxframe``: JSON with sorted keys: ``format``, ``version``, ``meta`` (the rest of it) and ``sha256``,
  the digest of the whole file with that digest's own 64 characters read as zeros, so that no byte is uncovered.
"""

from __future__ import annotations

import hashlib
import json
import math
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from pxframe.base.errors import PxframeError, some
from pxframe.base.files import replacing

FORMAT, VERSION = "pxframe-ticket", 1
_START = "start."
_KEY = "pxframe"  # one entry only: safetensors does not promise an order among several
_UNSIGNED = "0" * 64
_LONG = 200  # characters of JSON; a ticket of 156 layers then stays within 4096 bytes besides its masks


def save(path: str | Path, masks: Mapping[str, Tensor], meta: Mapping[str, Any], start: Mapping[str, Tensor]) -> None:
    """Write bool CPU ``masks``, JSON-able ``meta`` and CPU tensors ``start``; a file is replaced whole or not at all.

    Raises:
        PxframeError: ``meta`` is not JSON-able, or the file cannot be written.
    """
    try:
        data = _encode(masks, meta, start)
    except (TypeError, ValueError) as error:
        raise PxframeError(f"cannot write {path}: the ticket's meta does not fit in JSON: {error}") from error
    try:
        with replacing(path) as scratch:
            scratch.write_bytes(data)
    except OSError as error:
        raise PxframeError(f"cannot write {path}: {error.strerror}") from error


def load(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, Tensor]]:
    """The masks (bool, CPU, in their saved order), the meta and the start of the ticket at ``path``.

    Raises:
        PxframeError: there is no such file, or it is no ticket, a damaged one, or one of a newer version.
    """
    try:
        data = Path(path).read_bytes()
    except (OSError, ValueError) as error:
        raise PxframeError(f"cannot read ticket {path}: {getattr(error, 'strerror', None) or error}") from error
    try:
        return _decode(data)
    except PxframeError as error:
        raise PxframeError(f"{path} {error}") from error
    except (SafetensorError, zlib.error, AttributeError, LookupError, TypeError, ValueError, RuntimeError) as error:
        # A digest that fits says nothing about who wrote the file: its content is still not to be trusted.
        raise PxframeError(f"{path} is not a well-formed ticket ({type(error).__name__}); make it anew") from error


def fingerprint(weights: Mapping[str, Tensor]) -> str:
    """SHA-256, in hexadecimal, of names, shapes, dtypes and bytes of tensors of any dtype and device; order is moot."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        weight = weights[name].detach().cpu().contiguous()
        digest.update(json.dumps([name, list(weight.shape), str(weight.dtype)]).encode())
        # Through bytes, since numpy knows no bfloat16; flat first, since a scalar cannot change its item size.
        digest.update(weight.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _encode(masks: Mapping[str, Tensor], meta: Mapping[str, Any], start: Mapping[str, Tensor]) -> bytes:
    flat = np.concatenate([mask.reshape(-1).numpy() for mask in masks.values()])
    long = {key: value for key, value in meta.items() if len(_json(value)) > _LONG}
    layers = {
        "names": list(masks),
        "shapes": [list(mask.shape) for mask in masks.values()],
        "kept": [int(mask.count_nonzero()) for mask in masks.values()],
        "meta": long,
    }
    short = {key: value for key, value in meta.items() if key not in long}
    head = {"format": FORMAT, "version": VERSION, "meta": short, "sha256": _UNSIGNED}
    tensors = {
        "masks": torch.from_numpy(np.packbits(flat)),
        "layers": torch.frombuffer(bytearray(zlib.compress(_json(layers).encode(), 9)), dtype=torch.uint8),
        **{_START + name: value.contiguous() for name, value in start.items()},
    }
    data = safetensors.torch.save(tensors, {_KEY: _json(head)})
    return _replace_digest(data, _UNSIGNED, hashlib.sha256(data).hexdigest())


def _decode(data: bytes) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, Tensor]]:
    head = _head(data)
    version = head["version"]
    if version != VERSION:
        raise PxframeError(f"is a ticket of format version {version}, this pxframe reads {VERSION}; update pxframe")
    sha256 = str(head["sha256"])
    if hashlib.sha256(_replace_digest(data, sha256, _UNSIGNED)).hexdigest() != sha256:
        raise PxframeError("is damaged: its content does not match its sha256; copy or make it anew")
    tensors = safetensors.torch.load(data)
    layers = json.loads(zlib.decompress(tensors["layers"].numpy().tobytes()))
    sizes = [math.prod(shape) for shape in layers["shapes"]]
    packed = tensors["masks"].numpy()
    if packed.size != -(-sum(sizes) // 8):
        raise PxframeError(f"contradicts itself: {packed.size} bytes of masks for {sum(sizes)} weights; make it anew")
    if len(set(layers["names"])) != len(sizes):
        raise PxframeError(
            f"contradicts itself: {len(sizes)} masks for the names {some(layers['names'])}; make it anew"
        )
    flat = torch.from_numpy(np.unpackbits(packed, count=sum(sizes))).bool()
    masks = {}
    for name, shape, kept, part in zip(
        layers["names"], layers["shapes"], layers["kept"], flat.split(sizes), strict=True
    ):
        if int(part.count_nonzero()) != kept:
            raise PxframeError(
                f"contradicts itself: {name} keeps {int(part.count_nonzero())} weights by its mask, "
                f"{kept} by its count; make it anew"
            )
        masks[name] = part.reshape(shape).clone()
    start = {name.removeprefix(_START): value for name, value in tensors.items() if name.startswith(_START)}
    return masks, {**head["meta"], **layers["meta"]}, start


def _head(data: bytes) -> dict[str, Any]:
    """The ticket's entry in the safetensors header."""
    if not data:
        raise PxframeError("is empty; copy or make the ticket anew")
    length = int.from_bytes(data[:8], "little")
    try:
        header = json.loads(data[8 : 8 + length]) if length <= len(data) - 8 else None
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        if data.startswith((b"PK\x03\x04", b"\x80\x02")):
            raise PxframeError("is a pickle (torch.save), which may run code and is not opened; use Ticket.save")
        raise PxframeError("is no safetensors file, or a truncated or damaged one; copy or make the ticket anew")
    try:
        head = json.loads(header["__metadata__"][_KEY])
        known = head["format"] == FORMAT
    except (LookupError, TypeError, ValueError):
        known = False
    if not known:
        raise PxframeError("is a safetensors file but no pxframe ticket, or its header is damaged; check the path")
    return head


def _replace_digest(data: bytes, old: str, new: str) -> bytes:
    # Only "version" follows the digest in the header's sorted JSON, so the last occurrence is the digest itself.
    at = data.rfind(old.encode(), 8, 8 + int.from_bytes(data[:8], "little"))
    if at < 0 or len(old) != len(new):
        raise PxframeError("is damaged: its sha256 is not readable; copy or make it anew")
    return data[:at] + new.encode() + data[at + len(new) :]


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
