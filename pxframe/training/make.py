"""Building a runner from a model, data sets, a metric and the settings of training, and checking the settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
from torch import nn
from torch.utils.data import Dataset, default_collate

from pxframe.base import ranks
from pxframe.base.devices import checked_device
from pxframe.base.errors import PxframeError, blaming, some, within
from pxframe.training.hooks.repeatable import Repeatable, seed_worker
from pxframe.training.hooks.reports import EpochLog, LateLosses
from pxframe.training.hooks.sharing import BatchSampler, Together, check_share
from pxframe.training.hooks.weights import FreezeHook
from pxframe.training.runner import CHECKPOINT, Bfloat16, TaskRunner
from pxframe.training.settings import Training


def stacked(items: Sequence[Mapping[str, Any]]) -> Any:
    """Make one batch of items like those of :class:`pxframe.Images`: all of their entries are stacked.

    Raises:
        PxframeError: the images differ in size.
    """
    sizes = {tuple(item["inputs"].shape): None for item in items}  # in order, each once
    if len(sizes) > 1:
        one, other = ("x".join(map(str, size[1:])) for size in list(sizes)[:2])
        raise PxframeError(
            f"images of one batch differ in size ({one} and {other}, height x width); add Resize or a crop to the "
            f"'transform' of both data sets"
        )
    return default_collate(list(items))


def make_runner(
    model: nn.Module,
    training: Training,
    *,
    train: Dataset,
    test: Dataset,
    metric: BaseMetric,
    work_dir: Path,
    device: str,
    seed: int,
    resume: bool,
    head: str = "",
    test_batch_size: int | None = None,
    collate: str | Callable[[Sequence[Any]], Any] = stacked,
    loop: Mapping[str, Any] | None = None,
    scope: str = "mmengine",
    hooks: Sequence[Hook] = (),
    prepare: Callable[[nn.Module, Dataset], nn.Module] | None = None,
    log_level: str = "WARNING",
) -> TaskRunner:
    """Build a runner that is ready to ``train()`` and ``test()``, so that mistakes in a config show at once.

    Where torch.distributed runs several ranks, every rank builds the runner, and each step and each test is shared
    (:mod:`pxframe.training.hooks.sharing`).

    Args:
        model: an mmengine ``BaseModel``, such as :class:`pxframe.ImageModel`.
        training: the settings of training; a :class:`pxframe.TrainedTask` is one.
        train: data set to train on.
        test: data set to test on.
        metric: mmengine metric that ``test()`` computes, such as :class:`pxframe.TorchMetric`.
        work_dir: folder of this run alone.
        device: ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
        seed: of initialisation, shuffling and augmentation.
        resume: go on from the newest checkpoint in ``work_dir``, if there is one.
        head: name of the part of ``model`` whose learning rate is multiplied by ``training.head_lr_mult``; the
            backbone is ``model.backbone``.
        test_batch_size: images a step when testing; default: as in training.
        collate: function that makes a batch of a list of items, or its name in mmengine's ``FUNCTIONS``; default:
            stack items like those of :class:`pxframe.Images`, which must be of one size.
        loop: config of a training loop that replaces mmengine's loop by epochs. It is given all training images, in
            their order. With a loop, ``training.epochs`` is None, and the default schedule is a constant rate.
        scope: mmengine scope in which types are looked up, e.g. ``"mmseg"``.
        hooks: more mmengine hooks; :meth:`mmengine.runner.Runner.register_hook` adds others later.
        prepare: given the model and the training data, gives the model that is trained in its place.
        log_level: least level of the messages that are printed.

    Raises:
        PxframeError: a part cannot be built; the message names the part and the cause.
    """
    where, schedule = training.where, training.schedule
    if training.epochs is None and not loop:
        raise PxframeError(f"{where} needs the option 'epochs'")
    if schedule is None:
        cosine = {
            "type": "CosineAnnealingLR",
            "T_max": training.epochs,
            "by_epoch": True,
            "convert_to_iter_based": True,
        }
        schedule = [] if loop else [cosine]
    if prepare is not None:
        with within(where):
            model = prepare(model, train)
    frozen = [FreezeHook(norms_only=not training.frozen)] if training.frozen or training.frozen_norms else []
    if frozen and not hasattr(model, "backbone"):
        raise PxframeError(f"{where}: 'frozen' needs a model with the attribute 'backbone', and this one has none")
    on_gpu = checked_device(device).type == "cuda"
    mixed = training.amp == "bfloat16" or (training.amp is None and on_gpu)
    if mixed and not on_gpu:
        _check_gradients(model, where)
    wrapper: dict[str, Any] = {"type": Bfloat16 if mixed else OptimWrapper, "optimizer": dict(training.optimizer)}
    if training.head_lr_mult != 1:
        # mmengine looks for these strings anywhere in a name, the longest one first; a backbone may have a
        # "conv_head." in it, so the backbone is named as well
        factors = {"backbone.": 1.0, f"{head}.": training.head_lr_mult}
        wrapper["paramwise_cfg"] = {"custom_keys": {part: {"lr_mult": f} for part, f in factors.items()}}

    several = ranks.size() > 1
    if several:
        check_share(f"{where}: 'batch_size'", training.batch_size)
        metric.collect_device = "gpu"  # by messages on any device; "cpu" would leave files in the current folder

    def loader(dataset: Any, size: int, shuffled: bool) -> dict[str, Any]:
        sampler: dict[str, Any] = {"type": "DefaultSampler", "shuffle": shuffled}
        if several and shuffled:
            sampler = {"type": BatchSampler, "total": size, "where": where}
        return {
            "dataset": {"type": lambda: dataset},  # mmengine copies the config, and would copy the data set
            "sampler": sampler,
            "collate_fn": {"type": collate},
            # mmengine's own seeds them alike in every epoch
            "worker_init_fn": {"type": seed_worker},
            "batch_size": -(-size // ranks.size()),
            "num_workers": training.num_workers,
            "persistent_workers": False,  # a worker that lives on would carry random state between epochs
            "pin_memory": on_gpu,
            # a last batch of one image has no statistics for batch norm
            "drop_last": shuffled and len(dataset) >= size,
        }

    runner = TaskRunner(
        device=device,
        seed=seed,
        scope=scope,
        log_level=log_level,
        model=model,
        work_dir=str(work_dir),
        train_dataloader=loader(train, training.batch_size, loop is None),
        test_dataloader=loader(test, test_batch_size or training.batch_size, False),
        train_cfg=dict(loop) if loop else {"by_epoch": True, "max_epochs": training.epochs},
        test_cfg={},
        test_evaluator=[metric],
        optim_wrapper=wrapper,
        param_scheduler=[dict(s) for s in schedule],
        default_hooks={
            "runtime_info": {"type": LateLosses},
            "checkpoint": {
                "type": "CheckpointHook",
                "interval": training.checkpoint_every,
                "max_keep_ckpts": 2,
                "filename_tmpl": CHECKPOINT,
            },
            "logger": None,
        },
        custom_hooks=[Repeatable(), EpochLog(), *frozen, *hooks, *([Together(training.sync_bn)] if several else [])],
        resume=resume,
    )
    with runner._own_state(seed):
        with blaming(f"{where}: data loaders"):
            _ = runner.train_loop, runner.test_loop
        with blaming(f"{where}: 'optimizer' {dict(training.optimizer)}"):
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
