"""The device a job runs on."""

from __future__ import annotations

import torch

from pxframe.errors import PxframeError


def checked_device(name: str) -> torch.device:
    """``"cpu"`` or ``"cuda"`` as a device.

    Raises:
        PxframeError: another name, or CUDA where there is none.
    """
    if name not in ("cpu", "cuda"):
        raise PxframeError(f"device must be 'cpu' or 'cuda', got {name!r}")
    if name == "cuda" and not torch.cuda.is_available():
        raise PxframeError("--device cuda: torch sees no GPU on this machine; use --device cpu")
    return torch.device(name)
