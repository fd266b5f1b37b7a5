"""The settings of training, checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pxframe.base.errors import PxframeError
from pxframe.base.options import one_of, positive, whole_number


def sgd(lr: float, weight_decay: float = 5e-4) -> dict[str, Any]:
    """The config of SGD with momentum 0.9."""
    return {"type": "SGD", "lr": lr, "momentum": 0.9, "weight_decay": weight_decay}


@dataclass(kw_only=True, eq=False)
class Training:
    """How a model is trained.

    Args:
        epochs: number of passes over the training set; None for a training loop that does not count epochs.
        batch_size: images a step, on all processes together; a last batch with fewer images is left out.
        optimizer: config of a torch optimizer, e.g. ``dict(type="SGD", lr=0.1)``.
        schedule: configs of mmengine parameter schedulers; default: cosine to zero, by iteration.
        head_lr_mult: the head's learning rate is the backbone's times this factor.
        checkpoint_every: number of epochs from one checkpoint to the next; the last two are kept. A run that is killed
            goes on from the newest.
        num_workers: number of processes that load data; 0 loads in the process that trains.
        amp: ``"bfloat16"`` for mixed precision while training, ``"float32"`` for none; default: mixed on a GPU.
        frozen: True trains the head alone. The backbone's weights and the statistics of its norms stay as they are
            (with a linear head, a linear probe).
        frozen_norms: True keeps the statistics of the backbone's batch norms, those of a ticket's ``refit`` included;
            all weights are trained.
        sync_bn: with several processes (torchrun), True normalises by the statistics of the whole batch, as one process
            does; False by those of each process's share, which is faster. No effect in a single process.

    Raises:
        PxframeError: a value that its key does not take.
    """

    epochs: int | None = None
    batch_size: int = 128
    optimizer: Mapping[str, Any] = field(default_factory=lambda: sgd(0.1))
    schedule: Sequence[Mapping[str, Any]] | None = None
    head_lr_mult: float = 1.0
    checkpoint_every: int = 1
    num_workers: int = 0
    amp: str | None = None
    frozen: bool = False
    frozen_norms: bool = False
    sync_bn: bool = True

    def __post_init__(self) -> None:
        where = self.where
        if self.epochs is not None:
            whole_number(where, "epochs", self.epochs)
        whole_number(where, "batch_size", self.batch_size)
        whole_number(where, "checkpoint_every", self.checkpoint_every)
        whole_number(where, "num_workers", self.num_workers, least=0)
        positive(where, "head_lr_mult", self.head_lr_mult)
        one_of(where, "amp", self.amp, (None, "bfloat16", "float32"))
        one_of(where, "frozen", self.frozen, (False, True))
        one_of(where, "frozen_norms", self.frozen_norms, (False, True))
        one_of(where, "sync_bn", self.sync_bn, (False, True))
        if not isinstance(self.optimizer, Mapping):
            raise PxframeError(f"{where}: 'optimizer' must be a dict(type=...), got {self.optimizer!r}")
        parts = self.schedule
        if parts is not None and not (isinstance(parts, (list, tuple)) and all(isinstance(p, Mapping) for p in parts)):
            raise PxframeError(f"{where}: 'schedule' must be a list of dict(type=...), got {parts!r}")

    @property
    def where(self) -> str:
        """The beginning of messages about these settings."""
        return "training"
