"""Makes a run repeatable: seeds for every epoch, and checkpoints of plain values only."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.runner import set_random_seed

from pxframe.base import ranks
from pxframe.training.checkpoints import sign


class Repeatable(Hook):
    """Makes an epoch depend only on its number, the seed and the state in the checkpoint before it."""

    priority = "VERY_HIGH"

    def before_train_epoch(self, runner: Any) -> None:
        own = [ranks.rank()] if not ranks.is_main() else []  # augmentation and dropout differ from rank to rank
        set_random_seed(int(np.random.SeedSequence([runner.seed, runner.epoch, *own]).generate_state(1)[0]))

    def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """Keep tensors and plain values only, so that ``torch.load(weights_only=True)`` reads the checkpoint.

        mmengine would add the history of all logged numbers, as objects, and the functions of some schedulers.
        """
        kept = checkpoint["message_hub"]["runtime_info"].get("keep_ckpt_ids", [])
        checkpoint["message_hub"] = {
            "log_scalars": {},
            "runtime_info": {"keep_ckpt_ids": kept},
            "resumed_keys": {"keep_ckpt_ids": True},
        }
        checkpoint["meta"] = {key: checkpoint["meta"][key] for key in ("epoch", "iter", "seed")}
        checkpoint["meta"]["diverged"] = getattr(runner, "diverged", None)
        checkpoint["param_schedulers"] = [
            {key: value for key, value in state.items() if not callable(value)}
            for state in checkpoint.get("param_schedulers", [])
        ]
        sign(checkpoint, getattr(runner, "made_by", ""))


def seed_worker(worker_id: int) -> None:
    """Seed Python's and NumPy's random numbers in a data-loading worker.

    The seed comes from PyTorch's seed of the worker, which differs for every epoch and every worker.
    """
    seed = torch.initial_seed() % 2**32
    random.seed(seed)
    np.random.seed(seed)
