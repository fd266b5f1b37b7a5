"""A backward pass that gives the same numbers every time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def repeatable(samples: int) -> Iterator[None]:
    """One thread inside the block, if a batch has a single sample.

    On some processors oneDNN's gradient by the input of a convolution differs from call to call in its last bits if
    the batch has one sample and there are several threads. More samples, or one thread, always gave the same.
    """
    threads = torch.get_num_threads()
    try:
        if samples == 1 and threads > 1:
            torch.set_num_threads(1)
        yield
    finally:
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
