"""What to try first on a GPU: does it compute what the CPU computes, does it repeat itself, and does it ever wait?

    python benchmarks/gpu.py                     everything, on the GPU
    python benchmarks/gpu.py --device cpu --quick    the same code on small networks, where there is no GPU

1. px, snip, synflow, phew and grasp: the masks of the CPU and of the device are equal but for ties, and a second time
   the device gives the same bits.
2. Two epochs of each task in bfloat16 with a ticket: the metric is a number, and what is pruned stays zero.
3. The guard with each optimizer.
4. Powers of two are exact from 2**-149 to 2**127, and exponents are read exactly.
5. A round never waits (``torch.cuda.set_sync_debug_mode("error")``), and its memory over that of a plain forward pass.
6. The time of the threshold of 25 million scores, beside ``kthvalue`` and ``sort``.

Each check prints one line. The exit code is the number of checks that failed.
"""

from __future__ import annotations

import argparse
import copy
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read once, when the GPU is first used

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import pxframe
from pxframe.network.net import Net
from pxframe.plugin.registry import build
from pxframe.scoring.precision import full_precision
from pxframe.scoring.prunable import prunable
from pxframe.selection.threshold import global_masks
from pxframe.training.run import Setting, train
from pxframe_tasks.demo.digits import SCENE_CLASSES, write_folders, write_scenes

SCORERS = ("px", "snip", "synflow", "phew", "grasp")
CLOSE = 1e-3  # relative; scores of two devices are rounded in another order


def network(quick: bool) -> tuple[nn.Module, list[tuple[Tensor, Tensor]]]:
    torch.manual_seed(0)
    model = pxframe.build_backbone(dict(type="cifar_resnet", depth=8 if quick else 20, width=8 if quick else 16))
    size, number = (16, 2) if quick else (32, 8)
    return model.eval(), [(torch.randn(16, 3, size, size), torch.arange(16) % 10) for _ in range(number)]


# --- 1 -------------------------------------------------------------------------------------------------------------


def same_tickets(name: str, device: str, quick: bool) -> str:
    """Masks of one round, CPU against device. Where they differ, the CPU's score must lie at the threshold."""
    model, batches = network(quick)
    options = {"sparsity": 0.9, "rounds": 1}
    here = pxframe.prune(model, batches, name, **options)
    there, again = (pxframe.prune(copy.deepcopy(model).to(device), batches, name, **options) for _ in range(2))
    assert all(torch.equal(mask, again.masks[n]) for n, mask in there.masks.items()), "a second time it differs"
    other = {n: here.masks[n] != there.masks[n] for n in here.masks}
    count = sum(int(o.sum()) for o in other.values())
    if count and name == "phew":
        raise AssertionError(f"{count} weights differ, although phew walks on the CPU")
    if count:
        scores = pxframe.score(model, batches, name)
        threshold = torch.cat([scores[n][m] for n, m in here.masks.items()]).min()
        off = float((torch.cat([scores[n][o] for n, o in other.items()]) - threshold).abs().max())
        scale = max(float(threshold.abs()), 1e-6 * float(max(s.abs().max() for s in scores.values())))
        assert off < CLOSE * scale, (
            f"{count} of {here.total} weights differ, by up to {off / scale:.1e} of the threshold"
        )
    return f"{count} of {here.total} weights differ, all of them ties" if count else "the same mask, and so again"


# --- 2 -------------------------------------------------------------------------------------------------------------


def task_configs(folder: Path, number: int = 8) -> dict[str, dict[str, Any]]:
    """A small classification, segmentation and detection task on digits; writes the data into ``folder``."""
    write_folders(folder / "digits", classes=[0, 1], size=32, part=(0.0, 0.2))
    write_scenes(folder / "scenes", train=number, test=4, size=32)

    def scenes(listed: str) -> dict[str, Any]:
        return dict(
            type="pxframe_tasks.demo.digit_scenes.DigitScenes",
            data_root=str(folder / "scenes"),
            ann_file=f"ImageSets/Segmentation/{listed}.txt",
            data_prefix=dict(img_path="JPEGImages", seg_map_path="SegmentationClass"),
            pipeline=[dict(type="LoadImageFromFile"), dict(type="LoadAnnotations"), dict(type="PackSegInputs")],
        )

    def boxes(split: str) -> dict[str, Any]:
        return dict(type="VOCBoxes", root=str(folder / "scenes"), split=split, classes=SCENE_CLASSES[1:])

    images = {
        s: dict(type="torchvision.datasets.ImageFolder", root=str(folder / "digits" / s)) for s in ("train", "test")
    }
    adam = dict(type="AdamW", lr=1e-3)
    return {
        "classification": dict(type="classification", data=images, epochs=2, batch_size=16, head=dict(type="Linear")),
        "segmentation": dict(
            type="segmentation",
            data=dict(train=scenes("train"), test=scenes("val")),
            head=dict(type="FCNHead", channels=8, num_convs=1, norm_cfg=dict(type="BN")),
            epochs=2,
            batch_size=4,
            optimizer=adam,
        ),
        "detection": dict(
            type="detection",
            data=dict(train=boxes("train"), test=boxes("val")),
            head=dict(type="RetinaNet"),
            fpn=dict(out_channels=8, maps=[1, 2]),
            anchors=dict(sizes=[[10], [14], [18], [24]], aspect_ratios=[[1]] * 4),
            min_size=32,
            max_size=64,
            epochs=2,
            batch_size=2,
            optimizer=adam,
        ),
    }


def transfer(name: str, device: str, quick: bool) -> str:
    provider = build("backbone", "cifar_resnet")
    with tempfile.TemporaryDirectory() as folder:
        config = task_configs(Path(folder), 8 if quick else 64)[name]
        task = build("task", {**config, "amp": "bfloat16"})
        task.prepare()
        model = provider.build(depth=8, width=8, num_classes=2)
        ticket = pxframe.prune(model, None, "magnitude", 0.8, exclude=["linear.*"])
        # The task takes the model apart, and trains this very module.
        weights = {n: dict(model.named_parameters())[n] for n in ticket.masks}
        result = train(Setting(provider, device, 0), name, task, model, ticket, Path(folder) / "run")
    assert result["diverged"] is None, f"epoch {result['diverged']} diverged"
    assert math.isfinite(result["value"]), "the metric is not finite"
    grown = [n for n, w in weights.items() if (w.detach().cpu()[~ticket.masks[n]] != 0).any()]
    assert not grown, f"pruned weights grew back in {grown}"
    return f"{result['metric']} {result['value']:.1f} after {result['epochs']} epochs, {result['seconds']:.0f} s"


# --- 3 -------------------------------------------------------------------------------------------------------------


def optimizers(device: str) -> dict[str, Callable[[list[nn.Parameter]], torch.optim.Optimizer]]:
    made: dict[str, Callable[[list[nn.Parameter]], torch.optim.Optimizer]] = {
        "SGD": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, weight_decay=1e-3),
        "Adam": lambda p: torch.optim.Adam(p, lr=0.01),
        "AdamW, fused": lambda p: torch.optim.AdamW(p, lr=0.01, fused=True),
        "RMSprop": lambda p: torch.optim.RMSprop(p, lr=0.001, momentum=0.9),
        "Adafactor": lambda p: torch.optim.Adafactor(p, lr=0.01),
        "LBFGS": lambda p: torch.optim.LBFGS(p, lr=0.1, max_iter=3),
        "NAdam": lambda p: torch.optim.NAdam(p, lr=0.01),
    }
    if hasattr(torch.optim, "Muon"):
        made["Muon"] = lambda p: torch.optim.Muon([w for w in p if w.ndim == 2], lr=0.01)
    if device.startswith("cuda"):
        made["Adam, capturable"] = lambda p: torch.optim.Adam(p, lr=0.01, capturable=True)
    return made


def guarded(name: str, device: str, quick: bool) -> str:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 4)).to(device)
    ticket = pxframe.prune(model, None, "magnitude", 0.8, scope="layer")
    ticket.apply(model)
    optimizer = optimizers(device)[name](list(model.parameters()))
    x, y = torch.randn(64, 16, device=device), torch.arange(64, device=device) % 4
    before = {n: p.detach().clone() for n, p in model.named_parameters()}

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        return loss

    with ticket.guard(optimizer, model):
        for _ in range(3):
            optimizer.step(closure)
    after = dict(model.named_parameters())
    for weight, mask in ticket.masks.items():
        assert (after[weight].detach().cpu()[~mask] == 0).all(), f"pruned weights of {weight} grew back"
    moved = sum(int((after[n] != before[n]).sum()) for n in ticket.masks)
    assert moved, "nothing was trained"
    return f"{moved} of {ticket.kept} kept weights moved, no pruned one"


# --- 4 -------------------------------------------------------------------------------------------------------------


def powers(name: str, device: str, quick: bool) -> str:
    from pxframe.engine.scaled import power_of_two

    exponents = torch.arange(-149, 128, dtype=torch.int32, device=device)
    exact = [math.ldexp(1.0, e) for e in range(-149, 128)]
    found = power_of_two(exponents, torch.empty(0, device=device))
    assert found.tolist() == exact, "power_of_two is not exact"
    assert (torch.frexp(found).exponent - 1).tolist() == exponents.tolist(), "frexp is not exact"
    plain = torch.ldexp(torch.ones_like(found), exponents).tolist()
    return f"exact; torch.ldexp is wrong at {sum(a != b for a, b in zip(plain, exact, strict=True))} of {len(exact)}"


# --- 5 -------------------------------------------------------------------------------------------------------------


def rounds(name: str, device: str, quick: bool) -> str:
    model, batches = network(quick)
    model, on_gpu = model.to(device), device.startswith("cuda")
    batches = [(x.to(device), y.to(device)) for x, y in batches]
    masks = {n: torch.ones_like(model.get_parameter(n), dtype=torch.bool) for n in prunable(model, batches[0][0])}
    keep = sum(m.numel() for m in masks.values()) // 10
    scorer = build("scorer", name)

    def one_round() -> None:
        global_masks(scorer.score(net, batches), masks, keep)

    def forward() -> None:
        with torch.no_grad():
            model(batches[0][0])

    with full_precision(torch.device(device)):
        net = Net(model, masks)
        one_round()  # traces the network, and makes tables
        with never_waiting(on_gpu):
            one_round()
        memory = peak(one_round, on_gpu) / max(peak(forward, on_gpu), 1)
    return f"it does not wait; memory {memory:.1f} times a plain forward pass's" if on_gpu else "ran"


class never_waiting:
    def __init__(self, on_gpu: bool) -> None:
        self.on_gpu = on_gpu

    def __enter__(self) -> None:
        if self.on_gpu:
            torch.cuda.synchronize()
            torch.cuda.set_sync_debug_mode("error")

    def __exit__(self, *_: object) -> None:
        if self.on_gpu:
            torch.cuda.set_sync_debug_mode("default")


def peak(function: Callable[[], None], on_gpu: bool) -> int:
    """Bytes allocated on top of what is there before."""
    if not on_gpu:
        function()
        return 0
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    function()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


# --- 6 -------------------------------------------------------------------------------------------------------------


def threshold(name: str, device: str, quick: bool) -> str:
    values = torch.rand(100_000 if quick else 25_000_000, device=device)
    everywhere = torch.ones_like(values, dtype=torch.bool)
    texts = []
    for keep in (len(values) // 50, len(values) // 2):
        ways = {
            "pxframe": lambda keep=keep: global_masks({"": values}, {"": everywhere}, keep),
            "kthvalue": lambda keep=keep: torch.kthvalue(values, len(values) - keep + 1),
            "sort": lambda: values.sort(),
        }
        texts.append(f"keep {keep:,}: " + ", ".join(f"{way} {seconds(f, device):.4f} s" for way, f in ways.items()))
    return "; ".join(texts)


def seconds(function: Callable[[], Any], device: str) -> float:
    """The least of three runs."""
    took = []
    for _ in range(3):
        start = time.perf_counter()
        function()
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        took.append(time.perf_counter() - start)
    return min(took)


# -------------------------------------------------------------------------------------------------------------------


def checks(device: str) -> Iterator[tuple[str, Callable[[str, str, bool], str]]]:
    yield from (("ticket: " + name, same_tickets) for name in SCORERS)
    yield from (("training: " + name, transfer) for name in ("classification", "segmentation", "detection"))
    yield from (("guard: " + name, guarded) for name in optimizers(device))
    yield "powers of two", powers
    yield from (("round: " + name, rounds) for name in ("px", "synflow", "snip", "grasp"))
    yield "threshold", threshold


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="small networks and few numbers")
    args = parser.parse_args(argv)
    which = torch.cuda.get_device_name() if args.device.startswith("cuda") else "CPU"
    print(f"{which}, torch {torch.__version__}")
    failed = 0
    for label, check in checks(args.device):
        try:
            print(f"ok      {label:<26}{check(label.rpartition(': ')[2], args.device, args.quick)}", flush=True)
        except Exception as error:  # one check must not end the others
            failed += 1
            print(f"FAILED  {label:<26}{type(error).__name__}: {' '.join(str(error).split())}", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
