"""The mmengine Runner that tasks train with: one device, quiet, safe to kill, and repeatable to the bit on the CPU."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import torch
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import OptimWrapper
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmengine.visualization import Visualizer
from torch import nn
from torch.utils.data import Dataset

from pxframe.device import checked_device
from pxframe.errors import PxframeError, some
from pxframe.files import replacing
from pxframe.preserve import seeded
from pxframe.runner_hooks import EpochLog, Repeatable, seed_worker

_CHECKPOINT = "epoch_{}.pth"
_serial = count()


class Bfloat16(OptimWrapper):
    """Mixed precision on any device. mmengine's own wants a GPU, and scales losses, which bfloat16 does not need."""

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        with super().optim_context(model), torch.autocast(next(model.parameters()).device.type, torch.bfloat16):
            yield


class TaskRunner(Runner):
    """A :class:`mmengine.runner.Runner` for epochs on one device.

    What it does otherwise than mmengine's:

    - It runs where ``device`` says. Batches follow, through the model's data preprocessor.
    - A checkpoint an epoch is written whole or not at all; the last two are kept. They hold tensors and plain values
      only, and are read with ``weights_only=True``.
    - With ``resume`` it goes on from the newest checkpoint that can be read; without, it starts over, and ``train()``
      first removes what an earlier run left in ``work_dir``.
    - Every epoch draws its random numbers from (seed, epoch), so a run that was killed and resumed ends on the
      weights of one that was not; to the bit on the CPU.
    - ``train()`` and ``test()`` leave the process's random state, and mmengine's default scope, as they were.
    - It prints warnings only; the log is ``train.log`` in ``work_dir``.

    Args:
        device: ``"cpu"`` or ``"cuda"``.
        scope: mmengine scope in which types are looked up, e.g. ``"mmseg"``.
        log_level: of what is printed.
        options: of :class:`mmengine.runner.Runner`.
    """

    _has_loaded: bool

    def __init__(
        self, *, device: str, seed: int, scope: str = "mmengine", log_level: str = "WARNING", **options: Any
    ) -> None:
        self.device = checked_device(device)
        self._scope = scope
        with self._own_state(seed):
            super().__init__(
                **options,
                # mmengine keeps loggers and message hubs by this name, which by itself has only seconds in it
                experiment_name=f"pxframe-{next(_serial)}",
                default_scope=None,
                log_level=log_level,
                randomness={"seed": seed},
            )

    def train(self) -> nn.Module:
        """Train to the last epoch, or from the newest checkpoint on, and give the model."""
        with self._own_state(self.seed):
            if not self._resume:
                for path in self._checkpoints():
                    path.unlink()
            return super().train()

    def test(self) -> dict:
        """The metrics of the model, as it is, on the test set."""
        with self._own_state(self.seed):
            return super().test()

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        # channels_last: a quarter faster on a CPU, more on a GPU's matrix units
        return revert_sync_batchnorm(model.to(self.device, memory_format=torch.channels_last))  # type: ignore[call-overload]

    def save_checkpoint(self, out_dir: str, filename: str, *args: Any, **kwargs: Any) -> None:
        with replacing(Path(out_dir) / filename) as scratch:
            super().save_checkpoint(out_dir, scratch.name, *args, **kwargs)

    def load_checkpoint(self, filename: str, *_: Any, **__: Any) -> dict:
        """Load one of this class's checkpoints, strictly."""
        checkpoint = _read(filename)
        self.call_hook("after_load_checkpoint", checkpoint=checkpoint)
        try:
            self.model.load_state_dict(checkpoint["state_dict"])
        except RuntimeError as error:
            detail = " ".join(str(error).split())[:300]
            raise PxframeError(f"{filename} is of another model; remove it or use another folder: {detail}") from error
        # not stored, as it may hold anything; mmengine warns where it differs
        checkpoint["meta"]["dataset_meta"] = getattr(self.train_dataloader.dataset, "metainfo", None)
        return checkpoint

    def load_or_resume(self) -> None:
        """Resume from the newest checkpoint that can be read, if asked to and there is one."""
        if self._has_loaded:
            return
        self._has_loaded = True
        for scratch in Path(self.work_dir).glob(".epoch_*.part"):  # a run killed while it wrote
            scratch.unlink()
        for path in self._checkpoints() if self._resume else ():
            try:
                _read(path)
            except Exception as error:  # damage shows as whatever the bytes lead the reader to
                cause = str(error).splitlines()[0] if str(error) else type(error).__name__
                self.logger.warning(f"ignoring {path}, which cannot be read: {cause}")
            else:
                self.resume(str(path), map_location="cpu")
                return

    def setup_env(self, env_cfg: dict) -> None:
        super().setup_env(env_cfg)
        self._timestamp = ""  # else every start leaves a folder of this name in work_dir

    def build_logger(self, log_level: int | str = "WARNING", log_file: str | None = None, **kwargs: Any) -> MMLogger:
        log_file = log_file or str(Path(self.work_dir) / "train.log")
        logger = super().build_logger(log_level, log_file, **kwargs)
        logger.addFilter(_is_news)
        for handler in logger.handlers[1:]:  # after the console's
            handler.setLevel("INFO")
        return logger

    def build_visualizer(self, visualizer: Visualizer | dict | None = None) -> Visualizer:
        return super().build_visualizer(visualizer or {"type": "Visualizer"})  # without a back end: writes nothing

    def dump_config(self) -> None:
        """Write nothing: who starts the run knows its config."""

    def _log_env(self, env_cfg: dict) -> None:
        """Leave out mmengine's report on the machine, which starts two compilers."""

    def _checkpoints(self) -> list[Path]:
        """Newest first."""
        found = Path(self.work_dir).glob(_CHECKPOINT.format("*"))
        return sorted((p for p in found if p.stem[6:].isdigit()), key=lambda p: int(p.stem[6:]), reverse=True)

    @contextmanager
    def _own_state(self, seed: int) -> Iterator[None]:
        with seeded(seed, self.device), DefaultScope.overwrite_default_scope(self._scope):
            yield


def make_runner(
    model: nn.Module,
    *,
    train: Dataset,
    test: Dataset,
    metric: BaseMetric,
    work_dir: Path,
    device: str,
    seed: int,
    resume: bool,
    epochs: int | None,
    batch_size: int,
    test_batch_size: int | None = None,
    num_workers: int = 0,
    collate: str = "default_collate",
    optimizer: Mapping[str, Any],
    lr_mult: Mapping[str, float] | None = None,
    schedule: Sequence[Mapping[str, Any]] | None = None,
    loop: Mapping[str, Any] | None = None,
    amp: str | None = None,
    scope: str = "mmengine",
    hooks: Sequence[Hook] = (),
    log_level: str = "WARNING",
    where: str = "runner",
) -> TaskRunner:
    """A runner ready to ``train()`` and ``test()``, all parts built, so that mistakes in a config show now.

    Args:
        model: an ``mmengine`` ``BaseModel``.
        collate: name in mmengine's ``FUNCTIONS``.
        optimizer: config of a torch optimizer, e.g. ``dict(type="SGD", lr=0.1)``.
        lr_mult: factors on the learning rate, by a part of the parameters' names; the longest one that fits counts.
        schedule: configs of mmengine parameter schedulers; default: cosine to zero, by iteration.
        loop: config of another mmengine loop than one by epochs. It takes all training images, in their order; then
            ``epochs`` is None, and without ``schedule`` there is none.
        amp: ``"bfloat16"`` for mixed precision while training, ``"float32"`` for none; default: mixed on a GPU.
        hooks: more mmengine hooks; :meth:`mmengine.runner.Runner.register_hook` adds others later.
        where: what errors begin with.

    Raises:
        PxframeError: a part cannot be built, with the root cause.
    """
    cases = {"batch_size": batch_size} if loop else {"epochs": epochs, "batch_size": batch_size}
    for key, value in cases.items():
        if not (isinstance(value, int) and value > 0):
            raise PxframeError(f"{where}: {key!r} must be a whole number above 0, got {value!r}")
    if amp not in (None, "bfloat16", "float32"):
        raise PxframeError(f"{where}: 'amp' must be None, 'bfloat16' or 'float32', got {amp!r}")
    if schedule is None and loop:
        schedule = []
    elif schedule is None:
        schedule = [{"type": "CosineAnnealingLR", "T_max": epochs, "by_epoch": True, "convert_to_iter_based": True}]
    mixed = amp == "bfloat16" or (amp is None and device == "cuda")
    if mixed and device == "cpu":
        _check_gradients(model, where)
    if not isinstance(optimizer, Mapping):
        raise PxframeError(f"{where}: 'optimizer' must be a dict(type=...), got {optimizer!r}")
    if not (isinstance(schedule, (list, tuple)) and all(isinstance(part, Mapping) for part in schedule)):
        raise PxframeError(f"{where}: 'schedule' must be a list of dict(type=...), got {schedule!r}")
    wrapper: dict[str, Any] = {"type": Bfloat16 if mixed else OptimWrapper, "optimizer": dict(optimizer)}
    if lr_mult:
        wrapper["paramwise_cfg"] = {"custom_keys": {part: {"lr_mult": f} for part, f in lr_mult.items()}}

    def loader(dataset: Any, size: int, training: bool) -> dict[str, Any]:
        return {
            "dataset": {"type": lambda: dataset},  # mmengine copies the config, and would copy the data set
            "sampler": {"type": "DefaultSampler", "shuffle": training},
            "collate_fn": {"type": collate},
            # mmengine's own seeds them alike in every epoch
            "worker_init_fn": {"type": seed_worker},
            "batch_size": size,
            "num_workers": num_workers,
            "persistent_workers": False,  # a worker that lives on would carry random state between epochs
            "pin_memory": device == "cuda",
            # a last batch of one image has no statistics for batch norm
            "drop_last": training and len(dataset) >= size,
        }

    runner = TaskRunner(
        device=device,
        seed=seed,
        scope=scope,
        log_level=log_level,
        model=model,
        work_dir=str(work_dir),
        train_dataloader=loader(train, batch_size, loop is None),
        test_dataloader=loader(test, test_batch_size or batch_size, False),
        train_cfg=dict(loop) if loop else {"by_epoch": True, "max_epochs": epochs},
        test_cfg={},
        test_evaluator=[metric],
        optim_wrapper=wrapper,
        param_scheduler=[dict(s) for s in schedule],
        default_hooks={
            "checkpoint": {"type": "CheckpointHook", "interval": 1, "max_keep_ckpts": 2, "filename_tmpl": _CHECKPOINT},
            "logger": None,
        },
        custom_hooks=[Repeatable(), EpochLog(), *hooks],
        resume=resume,
    )
    with runner._own_state(seed):
        with blaming(f"{where}: data loaders"):
            _ = runner.train_loop, runner.test_loop
        with blaming(f"{where}: 'optimizer' {dict(optimizer)}"):
            runner.optim_wrapper = runner.build_optim_wrapper(wrapper)
        with blaming(f"{where}: 'schedule'"):
            runner.param_schedulers = runner.build_param_scheduler(runner.param_schedulers)
    return runner


def _check_gradients(model: nn.Module, where: str) -> None:
    """Refuse bfloat16 on the CPU where PyTorch (2.11, seen) leaves uninitialised memory in gradients."""
    wrong = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.modules.conv._ConvNd) and module.groups > 1 and max(module.dilation) > 1
    ]
    if wrong:
        raise PxframeError(
            f"{where}: amp='bfloat16' on a CPU gives wrong weight gradients of convolutions that are both grouped and "
            f"dilated ({some(wrong)}); leave 'amp' out"
        )


@contextmanager
def blaming(where: str) -> Iterator[None]:
    """Turn what mmengine and the libraries raise over a config into one line that begins with ``where``."""
    try:
        yield
    except PxframeError as error:
        raise PxframeError(f"{where}: {error}") from error
    except Exception as error:  # constructors of any library
        text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
        line = (text.strip().splitlines() or ["no reason given"])[0].split(" Please check whether")[0]
        raise PxframeError(f"{where}: {type(error).__name__}: {line}") from error


def _is_news(record: logging.LogRecord) -> bool:
    """Not mmengine's warning that it uses what it has deprecated itself."""
    return "will be deprecated in future" not in record.getMessage()


def _read(path: str | Path) -> dict[str, Any]:
    return torch.load(path, map_location="cpu", weights_only=True)
