"""One training on several ranks: each takes its share of every batch, and all of them take the same step."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from mmengine.dataset import DefaultSampler
from mmengine.hooks import Hook
from mmengine.model import MMDistributedDataParallel
from torch import Tensor
from torch.overrides import TorchFunctionMode

from pxframe.base import ranks
from pxframe.base.errors import PxframeError


class BatchSampler(DefaultSampler):
    """Deals the images of every batch of one process to the ranks in turn, so that all train on the same batches.

    Args:
        total: how many images a step takes on all ranks together. A last batch with fewer is left out; a data set that
            is smaller makes one batch.
        where: the beginning of messages.

    Raises:
        PxframeError: the ranks cannot share a batch equally.
    """

    def __init__(self, dataset: Any, total: int, where: str, shuffle: bool = True, seed: int | None = None) -> None:
        super().__init__(dataset, shuffle, seed, round_up=False)
        images = len(dataset)
        if images < total:
            check_share(f"{where}: the number of training images, fewer than 'batch_size',", images)
        check_share(f"{where}: 'batch_size'", total)
        self.total_size = images // total * total if images >= total else images
        self.num_samples = self.total_size // self.world_size


def check_share(what: str, number: int) -> None:
    """Refuse a number that the ranks cannot divide among them.

    Raises:
        PxframeError: names the next numbers that can be divided.
    """
    count = ranks.size()
    if number % count:
        low = number // count * count
        near = f"{low} or {low + count}" if low else f"{count}"
        raise PxframeError(f"{what} is {number}, which {count} processes cannot share equally; make it {near}")


class Together(Hook):
    """Lets every optimizer step of a run be one of all ranks, by mmengine's DistributedDataParallel.

    ``runner.model`` itself is not wrapped. Hooks, exports, checkpoints and tests see the names of one process; only
    its ``train_step`` is that of the wrapper.

    Args:
        sync_bn: batch norms use the statistics of the whole batch. Without, each uses those of its rank's share, and
            the running statistics are rank 0's.
    """

    # After the hooks that freeze weights, and before one that cuts a part out of a run.
    priority = "LOWEST"

    def __init__(self, sync_bn: bool) -> None:
        self.sync_bn = sync_bn

    def before_train(self, runner: Any) -> None:
        if not runner.max_iters or not any(p.requires_grad for p in runner.model.parameters()):
            return  # nothing takes steps
        # A head may leave maps of the backbone unread, whose weights then have no gradient.
        together = MMDistributedDataParallel(
            runner.model, broadcast_buffers=not self.sync_bn, find_unused_parameters=True
        )

        def step(*args: Any, **kwargs: Any) -> Any:
            if not self.sync_bn:
                return together.train_step(*args, **kwargs)
            with SharedStatistics():
                return together.train_step(*args, **kwargs)

        runner.model.train_step = step

    def after_train(self, runner: Any) -> None:
        equal(runner.model)


def equal(model: torch.nn.Module) -> None:
    """Give the model of every rank the weights and buffers of rank 0's, to the last bit."""
    tensors = model.state_dict()
    ranks.broadcast_tensors({name: value for name, value in tensors.items() if isinstance(value, Tensor)})


class SharedStatistics(TorchFunctionMode):
    """Inside the block, batch norms in training mode take the statistics of all ranks' batches together.

    torch's SyncBatchNorm refuses tensors on a CPU, and converting to it loses what subclasses of batch norm do beside,
    such as timm's activation. Here no module is replaced.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return (_batch_norm if func is F.batch_norm else func)(*args, **(kwargs or {}))


def _batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """``F.batch_norm`` over the batches of all ranks."""
    if not training:
        return F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    over = [0, *range(2, input.ndim)]
    shape = [1, -1] + [1] * (input.ndim - 2)
    with torch.autocast(input.device.type, enabled=False):
        x = input.float() if input.dtype in (torch.float16, torch.bfloat16) else input
        own = torch.full((1,), x.numel() / x.shape[1], dtype=x.dtype, device=x.device)
        found = _Sum.apply(torch.cat([x.sum(over), own]))
        count = found[-1].detach()
        mean = found[:-1] / count
        centred = x - mean.view(shape)
        variance = _Sum.apply(centred.square().sum(over)) / count
        if running_mean is not None and running_var is not None:
            with torch.no_grad():
                running_mean.lerp_(mean.to(running_mean.dtype), momentum)
                running_var.lerp_((variance * (count / (count - 1))).to(running_var.dtype), momentum)
        y = centred * (variance + eps).rsqrt().view(shape)
        if weight is not None:
            y = y * weight.to(y.dtype).view(shape)
        if bias is not None:
            y = y + bias.to(y.dtype).view(shape)
    return y.to(input.dtype)


class _Sum(torch.autograd.Function):
    """The sum over the ranks; so is its gradient, as every rank's loss depends on every rank's summand."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return ranks.summed(tensor)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return ranks.summed(gradient)
