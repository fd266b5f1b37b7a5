"""Full precision, repeatable operations and ordinary autograd while a model is scored, whatever the caller's mode."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import torch

from pxframe.network.trained import Train

#: torch's flags of float32 precision since 2.9, each parent before its children.
_FLAGS = tuple((b, op) for b in ("generic", "cuda", "mkldnn") for op in ("all", "matmul", "conv", "rnn"))

_MEMORY: Any = torch.utils.deterministic
#: The kernels of ``scaled_dot_product_attention``, as ``torch.backends.cuda`` spells them.
_KERNELS = ("flash", "mem_efficient", "math", "cudnn")


@contextmanager
def full_precision(device: torch.device, train: Train | None = None) -> Iterator[Train | None]:
    """Turn off TF32, reduced float32 precision, autocast and inference mode inside the block.

    On a GPU, operations are the repeatable ones, so that the same seed gives the same ticket: torch takes them where it
    has them and warns where not (it refuses nothing, even if the caller asked for that), and attention is computed as
    matrix products, since the fused kernels add up gradients in any order. On a CPU all operations are repeatable.

    Gives ``train``, wrapped so that the user's training runs with the settings the caller had.
    """
    callers = _Settings.read()
    full = _FULL
    if device.type == "cuda":
        full = replace(full, repeatable=_WARN, attention=_PRODUCTS)
    else:
        full = replace(full, repeatable=callers.repeatable, attention=callers.attention)
    try:
        full.write()
        with torch.inference_mode(False), torch.enable_grad(), torch.autocast(device.type, enabled=False):
            yield None if train is None else _with_settings(callers, train)
    finally:
        callers.write()


@dataclass(frozen=True)
class _Settings:
    """torch's process-wide settings of float32 precision.

    Attributes:
        matmul: of ``torch.set_float32_matmul_precision``.
        cudnn: ``torch.backends.cudnn``'s allow_tf32, deterministic, benchmark.
        repeatable: of ``torch.set_deterministic_debug_mode``; and whether new memory is filled meanwhile.
        attention: whether scaled dot products may use the flash, the memory-efficient, the plain and cuDNN's kernel.
        flags: the ``fp32_precision`` flags by (backend, operation), not resolved: "none" inherits from its parent.
    """

    matmul: str
    cudnn: tuple[bool, bool, bool]
    repeatable: tuple[int, bool]
    attention: tuple[bool, ...]
    flags: dict[tuple[str, str], str]

    @staticmethod
    def read() -> _Settings:
        """Read the settings. The old interface refuses to answer where the new one was used; both are covered."""
        flags: dict[tuple[str, str], str] = {}
        # A flag that is "none" shows its parent's value. Clearing each parent first shows what the child itself holds.
        for flag in _FLAGS:
            with suppress(AttributeError, RuntimeError):  # torch before 2.9, or a pair that torch does not have
                flags[flag] = torch._C._get_fp32_precision_getter(*flag)
                torch._C._set_fp32_precision_setter(*flag, "none")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the old interface announces its end
            matmul = torch.get_float32_matmul_precision()
            try:
                tf32 = torch.backends.cudnn.allow_tf32
            except RuntimeError:  # it disagrees with the flags, which are all off here
                tf32 = True
        cudnn = (tf32, torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark)
        repeatable = torch.get_deterministic_debug_mode(), _MEMORY.fill_uninitialized_memory
        attention = tuple(getattr(torch.backends.cuda, f"{kernel}_sdp_enabled")() for kernel in _KERNELS)
        found = _Settings(matmul, cudnn, repeatable, attention, flags)
        found.write()
        return found

    def write(self) -> None:
        """Put the settings in force."""
        cudnn: Any = torch.backends.cudnn
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.set_float32_matmul_precision(self.matmul)
            cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark = self.cudnn
        torch.set_deterministic_debug_mode(self.repeatable[0])
        _MEMORY.fill_uninitialized_memory = self.repeatable[1]
        for kernel, enabled in zip(_KERNELS, self.attention, strict=True):
            getattr(torch.backends.cuda, f"enable_{kernel}_sdp")(enabled)
        # The old interface writes into the flags, so they come last.
        for flag, value in self.flags.items():
            with suppress(AttributeError, RuntimeError):
                torch._C._set_fp32_precision_setter(*flag, value)


_WARN = 1, False  # torch warns of an operation that has no repeatable form; nothing reads memory before it is written
_PRODUCTS = tuple(kernel == "math" for kernel in _KERNELS)
_FULL = _Settings("highest", (False, True, False), _WARN, _PRODUCTS, {flag: "ieee" for flag in _FLAGS})


def _with_settings(settings: _Settings, train: Train) -> Train:
    def run(*args: Any, **kwargs: Any) -> None:
        scoring = _Settings.read()
        settings.write()
        try:
            train(*args, **kwargs)
        finally:
            scoring.write()

    return run
