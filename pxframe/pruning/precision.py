"""Full precision and ordinary autograd while a model is scored, whatever mode the caller is in."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch

from pxframe.scoring.net import Train

#: torch's flags of float32 precision since 2.9, each parent before its children.
_FLAGS = tuple((b, op) for b in ("generic", "cuda", "mkldnn") for op in ("all", "matmul", "conv", "rnn"))


@contextmanager
def full_precision(device: torch.device, train: Train | None = None) -> Iterator[Train | None]:
    """Turn off TF32, reduced float32 precision, autocast and inference mode inside the block.

    Gives ``train``, wrapped so that the user's training runs with the precision settings the caller had.
    """
    callers = _Settings.read()
    try:
        _FULL.write()
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
        flags: the ``fp32_precision`` flags by (backend, operation), not resolved: "none" inherits from its parent.
    """

    matmul: str
    cudnn: tuple[bool, bool, bool]
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
        found = _Settings(matmul, (tf32, torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark), flags)
        found.write()
        return found

    def write(self) -> None:
        """Put the settings in force."""
        cudnn: Any = torch.backends.cudnn
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.set_float32_matmul_precision(self.matmul)
            cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark = self.cudnn
        # The old interface writes into the flags, so they come last.
        for flag, value in self.flags.items():
            with suppress(AttributeError, RuntimeError):
                torch._C._set_fp32_precision_setter(*flag, value)


_FULL = _Settings("highest", (False, True, False), {flag: "ieee" for flag in _FLAGS})


def _with_settings(settings: _Settings, train: Train) -> Train:
    def run(*args: Any, **kwargs: Any) -> None:
        scoring = _Settings.read()
        settings.write()
        try:
            train(*args, **kwargs)
        finally:
            scoring.write()

    return run
