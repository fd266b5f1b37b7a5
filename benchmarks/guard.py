"""What a guarded training step costs over an unguarded one.

ResNet-18, random data, any optimizer that timm knows; on a GPU as tasks train there, in channels_last and bfloat16.
Guarded and unguarded steps alternate on two copies of one network, so that whatever else slows the machine slows both.
On a CPU the time is the processor time of this process: other processes on the machine change it less than the time of
day::

    python benchmarks/guard.py
    python benchmarks/guard.py --clip 1 --batch 64
    python benchmarks/guard.py --optimizer muon
    python benchmarks/guard.py --device cuda --steps 200 --batch 128
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from timm.optim import create_optimizer_v2
from torch import Tensor, nn
from torchvision.models import resnet18

from pxframe.ticket.ticket import Ticket


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=30, help="timed pairs of steps")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=64, help="pixels a side")
    parser.add_argument("--sparsity", type=float, default=0.9)
    parser.add_argument("--optimizer", default="sgd", help="a name of timm.optim.list_optimizers()")
    parser.add_argument("--clip", type=float, default=0.0, help="clip the norm of the gradients at this; 0: do not")
    args = parser.parse_args()

    torch.manual_seed(0)
    guarded = resnet18()
    masks = {n: torch.rand(p.shape) >= args.sparsity for n, p in guarded.named_parameters() if p.ndim > 1}
    ticket = Ticket(masks)
    ticket.apply(guarded)
    guarded.to(args.device, memory_format=torch.channels_last)
    free = copy.deepcopy(guarded)
    inputs = torch.randn(args.batch, 3, args.size, args.size, device=args.device)
    inputs = inputs.to(memory_format=torch.channels_last)
    targets = torch.randint(0, 1000, (args.batch,), device=args.device)

    optimizers = [create_optimizer_v2(m, args.optimizer, lr=0.01, weight_decay=1e-4) for m in (guarded, free)]
    ticket.guard(optimizers[0], guarded)
    sides = [stepper(m, o, inputs, targets, args.clip) for m, o in zip((guarded, free), optimizers, strict=True)]

    for _ in range(3):
        for side in sides:
            timed(side, args.device)
    ratios, seconds = [], []
    for number in range(args.steps):
        # Each side goes first in half of the pairs, so that neither always finds the other's caches.
        order = (0, 1) if number % 2 else (1, 0)
        took = {which: timed(sides[which], args.device) for which in order}
        ratios.append(took[0] / took[1])
        seconds.append(took[1])
    low, middle, high = statistics.quantiles(ratios, n=4)
    free_rate = args.batch / statistics.median(seconds)
    print(f"{ticket}, {args.optimizer}, {args.device}, {args.steps} pairs")
    print(f"images/s: unguarded {free_rate:.0f}, guarded {free_rate / middle:.0f}")
    print(f"guarded / unguarded: median {middle:.4f}, quartiles {low:.4f} to {high:.4f}")


def stepper(
    model: nn.Module, optimizer: torch.optim.Optimizer, inputs: Tensor, targets: Tensor, clip: float
) -> Callable[[], None]:
    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=inputs.is_cuda):
            loss = F.cross_entropy(model(inputs), targets)
        loss.backward()
        if clip:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()

    return step


def timed(step: Callable[[], None], device: str) -> float:
    """Seconds of one step, the device's work included."""
    if not device.startswith("cuda"):
        start = time.process_time()
        step()
        return time.process_time() - start
    torch.cuda.synchronize()
    start = time.perf_counter()
    step()
    torch.cuda.synchronize()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
