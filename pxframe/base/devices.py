"""Devices: their names, and sending tensors to them without waiting."""

from __future__ import annotations

import torch
from torch import Tensor

from pxframe.base.errors import PxframeError


def checked_device(name: str) -> torch.device:
    """``"cpu"``, ``"cuda"`` (the process's current GPU) or ``"cuda:N"`` as a device.

    Raises:
        PxframeError: another name, or a GPU that is not there.
    """
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError, ValueError):
        device = None
    if (
        not isinstance(name, str)
        or device is None
        or device.type not in ("cpu", "cuda")
        or (device.type == "cpu" and device.index is not None)
    ):
        raise PxframeError(f"device must be 'cpu', 'cuda' or 'cuda:N', got {name!r}")
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise PxframeError(f"device {name!r}: torch sees no GPU on this machine; use 'cpu'")
        if (device.index or 0) >= torch.cuda.device_count():
            found = torch.cuda.device_count()
            raise PxframeError(f"device {name!r}: torch sees no such GPU, only {found}, from 'cuda:0' on")
    return device


def held_for(tensor: Tensor, device: torch.device) -> Tensor:
    """``tensor``, kept where :func:`sent` can read it: for a GPU a tensor of the CPU in pinned memory."""
    if tensor.device.type == "cpu" and device.type == "cuda":
        return tensor.pin_memory()
    return tensor.to(device)


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """``tensor`` on ``device``; neither the program nor a GPU waits for the copy.

    Only from pinned memory does a GPU copy by itself. From other memory the program waits until the GPU has done all
    work that was given to it before, and until the copy is made.
    """
    return held_for(tensor, device).to(device, non_blocking=True)
