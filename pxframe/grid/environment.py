"""The environment of a cell's process: its threads, its GPUs, and nothing of a launcher that the driver runs under."""

from __future__ import annotations

from collections.abc import Mapping

#: What torchrun tells the processes that it starts. A cell that inherited it would take itself for one of them, and two
#: cells with a launcher of their own would meet at one port.
_LAUNCHER = ("MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE", "LOCAL_", "GROUP_", "ROLE_", "TORCHELASTIC_", "PET_")
#: What a process on another machine is told of the driver's environment, by the beginnings of the names.
_SENT = ("PXFRAME_", "PYTHONPATH", "PYTHONHASHSEED", "HF_", "TORCH_HOME", "XDG_CACHE_HOME")


def settings(threads: int, gpu: bool) -> dict[str, str]:
    """The variables that are set for every cell.

    Args:
        threads: of each process.
        gpu: whether it may see GPUs.
    """
    hidden = {} if gpu else {"CUDA_VISIBLE_DEVICES": ""}
    return {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads), **hidden}


def inherited(environ: Mapping[str, str]) -> dict[str, str]:
    """``environ`` without what a launcher of distributed training has put there."""
    return {name: value for name, value in environ.items() if not name.startswith(_LAUNCHER)}


def sent(environ: Mapping[str, str]) -> dict[str, str]:
    """What of ``environ`` goes with a cell to another machine, which has paths and devices of its own."""
    return {name: value for name, value in environ.items() if name.startswith(_SENT)}
