"""The mmengine Runner that tasks train with. It is quiet, can be killed at any time, and repeats runs exactly."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import master_only
from mmengine.logging import MMLogger
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import OptimWrapper
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmengine.visualization import Visualizer
from torch import nn

from pxframe.base import ranks
from pxframe.base.devices import checked_device
from pxframe.base.errors import PxframeError
from pxframe.files.writing import replacing
from pxframe.running.undisturbed import seeded
from pxframe.training.checkpoints import read_signed

CHECKPOINT = "epoch_{}.pth"
_serial = count()


class Bfloat16(OptimWrapper):
    """Mixed precision on any device. mmengine's wrapper needs a GPU and scales losses, which bfloat16 does not need."""

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        with super().optim_context(model), torch.autocast(next(model.parameters()).device.type, torch.bfloat16):
            yield


class TaskRunner(Runner):
    """A :class:`mmengine.runner.Runner` for epochs on one device.

    It differs from mmengine's runner as follows:

    - It runs on ``device``. The model's data preprocessor moves batches there.
    - It writes a checkpoint every so many epochs and after the last, and keeps two. A checkpoint is written completely
      or not at all. It holds tensors and plain values only, and is read with ``weights_only=True``.
    - With ``resume`` it goes on from the newest checkpoint that can be read. Without, it starts anew, and ``train()``
      first removes the checkpoints that an earlier run left in ``work_dir``.
    - The random numbers of an epoch depend on the seed and the number of the epoch only. So a run that was killed and
      resumed ends with the same weights as a run that was not, on a CPU bit for bit.
    - ``train()`` and ``test()`` do not change the random state of the process or mmengine's default scope.
    - Where torch.distributed runs several ranks, ``model`` is not wrapped;
      :class:`pxframe.training.hooks.sharing.Together`
      shares the steps. Rank 0 writes all files.
    - It prints warnings only. The log is ``train.log`` in ``work_dir``.

    Args:
        device: ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
        seed: seed of initialisation, shuffling and augmentation.
        scope: mmengine scope in which types are looked up, e.g. ``"mmseg"``.
        log_level: least level of the messages that are printed.
        options: further arguments of :class:`mmengine.runner.Runner`.
    """

    _has_loaded: bool
    #: Digest of the run's recipe. Checkpoints hold it, and the run does not resume from one with another digest.
    made_by: str = ""

    def __init__(
        self, *, device: str, seed: int, scope: str = "mmengine", log_level: str = "WARNING", **options: Any
    ) -> None:
        self.device = checked_device(device)
        self._scope = scope
        with self._own_state(seed):
            super().__init__(
                **options,
                # mmengine keeps loggers and message hubs by this name. Its default name is a time in seconds, so two
                # runs that start in the same second would share them.
                experiment_name=f"pxframe-{next(_serial)}",
                default_scope=None,
                log_level=log_level,
                randomness={"seed": seed},
            )

    def train(self) -> nn.Module:
        """Train up to the last epoch, from the newest checkpoint if the run is resumed, and give the model."""
        with self._own_state(self.seed):
            if not self._resume:
                ranks.by_first(self._remove_checkpoints)
            return super().train()

    def test(self) -> dict:
        """The metrics of the model on the test set, by name."""
        with self._own_state(self.seed):
            return super().test()

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        # channels_last is a quarter faster on a CPU, and even faster on the tensor cores of a GPU
        return revert_sync_batchnorm(model.to(self.device, memory_format=torch.channels_last))  # type: ignore[call-overload]

    @master_only
    def save_checkpoint(self, out_dir: str, filename: str, *args: Any, **kwargs: Any) -> None:
        with replacing(Path(out_dir) / filename) as scratch:
            super().save_checkpoint(out_dir, scratch.name, *args, **kwargs)

    def load_checkpoint(self, filename: str, *_: Any, **__: Any) -> dict:
        """Load a checkpoint of this class. Its names and shapes must be those of the model.

        Raises:
            PxframeError: the file is damaged, or of another model.
        """
        checkpoint = read_signed(filename)
        self.call_hook("after_load_checkpoint", checkpoint=checkpoint)
        try:
            self.model.load_state_dict(checkpoint["state_dict"])
        except RuntimeError as error:
            detail = " ".join(str(error).split())[:300]
            raise PxframeError(f"{filename} is of another model; remove it or use another folder: {detail}") from error
        # It is not stored, because it may hold any objects. Without it, mmengine would warn that it differs.
        checkpoint["meta"]["dataset_meta"] = getattr(self.train_dataloader.dataset, "metainfo", None)
        return checkpoint

    def load_or_resume(self) -> None:
        """Resume from the newest checkpoint that can be read, if ``resume`` was set and there is one."""
        if self._has_loaded:
            return
        self._has_loaded = True
        newest = ranks.by_first(self._newest)
        if newest is not None:
            self.resume(str(newest), map_location="cpu")

    def _newest(self) -> Path | None:
        """The checkpoint to resume from."""
        for scratch in Path(self.work_dir).glob(".epoch_*.part"):  # a run was killed while it wrote one
            scratch.unlink()
        for path in self._checkpoints() if self._resume else ():
            try:
                made_by = read_signed(path)["meta"]["made_by"]
                if made_by != self.made_by:
                    raise PxframeError("it is of another run")
            except PxframeError as error:
                self.logger.warning(f"ignoring {path}: {error}")
            else:
                return path
        return None

    def setup_env(self, env_cfg: dict) -> None:
        super().setup_env(env_cfg)
        self._timestamp = ""  # otherwise every start would leave a folder of this name in work_dir

    def build_logger(self, log_level: int | str = "WARNING", log_file: str | None = None, **kwargs: Any) -> MMLogger:
        log_file = log_file or str(Path(self.work_dir) / "train.log")
        logger = super().build_logger(log_level, log_file, **kwargs)
        logger.addFilter(_is_news)
        for handler in logger.handlers[1:]:  # after the console's
            handler.setLevel("INFO")
        return logger

    def build_visualizer(self, visualizer: Visualizer | dict | None = None) -> Visualizer:
        return super().build_visualizer(visualizer or {"type": "Visualizer"})  # no back end: it writes nothing

    def dump_config(self) -> None:
        """Write nothing. The caller of the runner knows its config."""

    def _log_env(self, env_cfg: dict) -> None:
        """Skip mmengine's report on the machine, which would start two compilers."""

    def _remove_checkpoints(self) -> None:
        for path in self._checkpoints():
            path.unlink()

    def _checkpoints(self) -> list[Path]:
        """The checkpoints in ``work_dir``, the newest first."""
        found = Path(self.work_dir).glob(CHECKPOINT.format("*"))
        return sorted((p for p in found if p.stem[6:].isdigit()), key=lambda p: int(p.stem[6:]), reverse=True)

    @contextmanager
    def _own_state(self, seed: int) -> Iterator[None]:
        with seeded(seed, self.device), DefaultScope.overwrite_default_scope(self._scope):
            yield


def _is_news(record: logging.LogRecord) -> bool:
    """Hide mmengine's warnings about deprecated functions, because mmengine itself calls them."""
    return "will be deprecated in future" not in record.getMessage()
