"""How close scoring comes to its lower bound.

    python benchmarks/scoring.py [--device cuda] [--quick]

Both sides of each ratio alternate within one run; medians are compared. The bounds: a PX round cannot cost less than
two plain forward passes of its batch without gradients (f and g), a SynFlow round not less than one forward and
backward pass of one image, SNIP not less than one of its batch. Memory is the most that either side's tensors take at
once. On a GPU 100 rounds of pruning are timed as a whole beside it.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from itertools import accumulate
from typing import Any

import timm
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

import pxframe
from pxframe.network.net import Net
from pxframe.plugin.registry import build
from pxframe.scoring.prunable import prunable
from pxframe.selection.threshold import global_masks

CASES = {
    "ResNet-20, 64 x 32x32": (64, 32),
    "ResNet-50, 16 x 224x224": (16, 224),
    "ResNet-50, 64 x 224x224": (64, 224),
}
GPU_CASES = {"ResNet-20, 100 x 32x32": (100, 32), "ResNet-50, 256 x 224x224": (256, 224)}


def case(batch: int, size: int, device: str) -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    if size == 32:
        model = pxframe.build_backbone(dict(type="cifar_resnet", depth=20))
    else:
        model = timm.create_model("resnet50", zero_init_last=False)
    labels = torch.arange(batch, device=device) % 10
    return model.eval().to(device), torch.randn(batch, 3, size, size, device=device), labels


def as_net(model: nn.Module, x: Tensor) -> Net:
    names = prunable(model, x[:1])
    return Net(model, {n: torch.ones_like(model.get_parameter(n), dtype=torch.bool) for n in names})


def scoring(name: str, net: Net, batch: tuple[Tensor, Any]) -> Callable[[], Any]:
    scorer = build("scorer", name)
    return lambda: scorer.score(net, [batch])


def forward(model: nn.Module, x: Tensor, times: int = 1) -> Callable[[], None]:
    def run() -> None:
        with torch.no_grad():
            for _ in range(times):
                model(x)

    return run


def forward_backward(model: nn.Module, x: Tensor, y: Tensor) -> Callable[[], Any]:
    return lambda: torch.autograd.grad(F.cross_entropy(model(x), y), list(model.parameters()))


def seconds(function: Callable[[], Any], device: str) -> float:
    start = time.perf_counter()
    function()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def compare(side: Callable[[], Any], bound: Callable[[], Any], device: str, pairs: int) -> tuple[float, float]:
    """Medians in seconds; the two sides alternate, after one run each that is not counted."""
    times: tuple[list[float], list[float]] = ([], [])
    for pair in range(pairs + 1):
        for function, kept in zip((side, bound), times, strict=True):
            spent = seconds(function, device)
            if pair:
                kept.append(spent)
    return statistics.median(times[0]), statistics.median(times[1])


def thresholding(entries: int, device: str) -> Callable[[], Any]:
    """Scores as ResNet-50 has them, in 54 layers; every tenth weight kept of the half that is left."""
    torch.manual_seed(0)
    layers = {str(i): torch.randn(entries // 54, device=device).exp() for i in range(54)}
    left = {name: torch.rand_like(scores) < 0.5 for name, scores in layers.items()}

    def run() -> None:
        masks = global_masks(layers, left, entries // 20)
        assert sum(int(m.count_nonzero()) for m in masks.values()) == entries // 20

    return run


def peak(function: Callable[[], Any], device: str) -> int:
    """Bytes of tensors that ``function`` holds at most, beyond those that were there before."""
    function()  # what is made once, traces among it, is there before it is counted
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        function()
    events = profiled.profiler.kineto_results.events()  # type: ignore[union-attr]
    changes = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
    return max(accumulate(size for _, size in changes))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--quick", action="store_true", help="ResNet-20 and a small threshold only")
    args = parser.parse_args()
    device = args.device
    console = Console()
    table = Table(title=f"{torch.get_num_threads()} threads" if device == "cpu" else torch.cuda.get_device_name())
    for heading in ("what", "against", "seconds", "against", "ratio", "at most"):
        table.add_column(heading, justify="left" if heading == "what" else "right")

    def row(what: str, bound: str, found: tuple[float, float], limit: float) -> None:
        ratio = found[0] / found[1]
        table.add_row(what, bound, f"{found[0]:.4f}", f"{found[1]:.4f}", f"{ratio:.2f}", f"{limit:.2f}")
        console.print(f"{what}: {ratio:.2f} of {bound}", highlight=False)

    for name, (batch, size) in list(CASES.items())[: 1 if args.quick else None]:
        model, x, y = case(batch, size, device)
        net = as_net(model, x)
        pairs = 21 if size == 32 else 5
        px = scoring("px", net, (x, y))
        row(f"PX round, {name}", "2 plain forward passes", compare(px, forward(model, x, 2), device, pairs), 1.10)
        for scorer in ("synflow", "synflow_l2"):
            one = forward_backward(model, x[:1], y[:1])
            found = compare(scoring(scorer, net, (x, y)), one, device, 21)
            row(f"{scorer} round, {name}", "forward+backward of 1 image", found, 1.5)
        whole = forward_backward(model, x, y)
        found = compare(scoring("snip", net, (x, y)), whole, device, pairs if size == 32 else 3)
        row(f"SNIP, {name}", "forward+backward of its batch", found, 1.1)
        plain = peak(forward(model, x), device)
        joint = build("scorer", dict(type="px", variant="joint"))
        for what, function, limit in (
            ("PX round", px, "2.20"),
            ("px joint, 4 batches", lambda n=net, b=(x, y), j=joint: j.score(n, [b] * 4), "2.00"),
        ):
            memory = peak(function, device)
            table.add_row(
                f"{what}, {name}: peak memory",
                "plain forward pass",
                *(f"{m / 2**20:.0f} MiB" for m in (memory, plain)),
                f"{memory / plain:.2f}",
                limit,
            )
    entries = 1_000_000 if args.quick else 25_000_000
    run = thresholding(entries, device)
    threshold = statistics.median(seconds(run, device) for _ in range(9))
    table.add_row(f"thresholding {entries:,} scores", "", f"{threshold:.3f}", "", "", "0.08 s")
    if device == "cuda":
        for name, (batch, size) in GPU_CASES.items():
            model, x, _ = case(batch, size, device)
            forward(model, x)()
            plain = statistics.median(seconds(forward(model, x), device) for _ in range(20))
            whole_prune = lambda m=model, v=x: pxframe.prune(m, [(v, None)], sparsity=0.982, rounds=100)  # noqa: E731
            spent = seconds(whole_prune, device)
            console.print(
                f"{name}, 100 rounds: {spent:.1f} s, {100 * batch / spent:,.0f} images/s "
                f"(plain forward {batch / plain:,.0f} images/s)"
            )
    console.print(table)


if __name__ == "__main__":
    main()
