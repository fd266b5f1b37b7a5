"""What a ticket's network costs: dense, masked, slim and sparse, side by side.

    python tools/bench.py TICKET [--slim] [--sparse] [--batch 32] [--device cpu] [--out FILE]

``--sparse`` uses layers in CSR form where they are faster, and prints from which density on they are; it takes minutes.
FILE, by default the ticket's name with -bench.json beside it, gets all numbers.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from pxframe.base.errors import PxframeError
from pxframe_tools.common import script, show_table
from pxframe_tools.measuring import number
from pxframe_tools.ticketed import add_ticket_arguments, built, check_ticket_arguments, output

if TYPE_CHECKING:  # torch takes seconds to import
    from torch import nn

    from pxframe.speed.break_even import BreakEven
    from pxframe.speed.sparse import Sparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--slim", action="store_true", help="measure the slim network too (pxframe[slim])")
    parser.add_argument(
        "--sparse",
        action="store_true",
        help="measure sparse layers too, and from which density on they are faster (CPU only; takes minutes)",
    )
    parser.add_argument("--batch", metavar="N", type=number, default=32, help="images in a batch; default: 32")
    parser.add_argument(
        "--rounds", metavar="N", type=number, default=30, help="measurements of each network; default: 30"
    )
    parser.add_argument("--device", metavar="D", default="cpu", help="cpu, cuda or cuda:N; default: cpu")
    parser.add_argument("--out", metavar="FILE", help="file to write; default: TICKET-bench.json, beside the ticket")
    add_ticket_arguments(parser)


def run(args: argparse.Namespace) -> int:
    check_ticket_arguments(args)
    if args.sparse and args.device != "cpu":
        raise PxframeError("--sparse is for a CPU: leave --device out; for a GPU there is pxframe.sparse_on_gpu")
    from dataclasses import asdict

    import torch

    from pxframe.base.devices import checked_device
    from pxframe.files.writing import write_json
    from pxframe.plugin.registry import build_backbone
    from pxframe.speed.clock import take_times
    from pxframe.speed.cost import count_cost

    found = built(args)
    device = checked_device(args.device)
    networks = {"dense": build_backbone(dict(found.config)).eval(), "masked": found.model}
    generator = torch.Generator().manual_seed(0)
    one, many = (torch.randn(n, *found.size, generator=generator) for n in (1, args.batch))
    if args.slim:
        from pxframe.slimming.build import slim

        example = torch.randn(2, *found.size, generator=generator)
        networks["slim"] = slim(found.model, found.ticket, example).model
    sparse = _sparse(found.model, many) if args.sparse else None
    if sparse is not None:
        networks["sparse"] = sparse[0].model
    networks = {name: network.to(device) for name, network in networks.items()}
    one, many = one.to(device), many.to(device)
    rows: dict[str, dict[str, Any]] = {name: asdict(count_cost(network, one)) for name, network in networks.items()}
    for key, images in (("latency", one), ("batch", many)):
        for name, quartiles in take_times(networks, images, args.rounds).items():
            rows[name][f"{key}_seconds"] = quartiles
    for row in rows.values():
        row["images_per_second"] = [len(many) / seconds for seconds in reversed(row["batch_seconds"])]
    _print(rows, args.batch)
    if sparse is not None:
        _print_sparse(*sparse)
    out = output(args, "-bench.json")
    setting = {"device": str(device), "threads": torch.get_num_threads(), "batch": args.batch, "input": found.size}
    write_json(out, {"setting": setting, "networks": rows, **(_described(*sparse) if sparse is not None else {})})
    print(f"{setting['threads']} threads, device {device}; wrote {out}")
    return 0


def _sparse(model: nn.Module, images: Any) -> tuple[Sparse, list[BreakEven]]:
    """The network with sparse layers where they are faster on these images, and the break-even of the largest."""
    from pxframe.speed.break_even import break_even
    from pxframe.speed.cpu import sparse_on_cpu

    print("timing each linear layer and 1x1 convolution, dense and sparse", flush=True)
    return sparse_on_cpu(model, images), break_even(model, images)


def _described(found: Sparse, sizes: list[BreakEven]) -> dict[str, Any]:
    """What the file says of the sparse network."""
    from dataclasses import asdict

    layers = {"sparse": found.sparse, "dense": found.dense, "seconds": found.seconds}
    return {"layers": layers, "break_even": [{**asdict(size), "faster_from": size.faster_from} for size in sizes]}


def _print_sparse(found: Sparse, sizes: list[BreakEven]) -> None:
    from rich.table import Table

    if sizes:
        table = Table("layers", "weight", box=None, pad_edge=False)
        titles = ["positions", "ms, dense", *(f"sparse at {density:g}" for density in sizes[0].csr), "faster from"]
        for title in titles:
            table.add_column(title, justify="right")
        for size in sizes:
            times = (f"{1e3 * seconds:.3g}" for seconds in (size.dense, *size.csr.values()))
            best = "never" if size.faster_from is None else f"{size.faster_from:g}"
            table.add_row(size.kind, f"{size.outputs} x {size.inputs}", f"{size.positions:,}", *times, best)
        print()
        show_table(table, 160)
    total = len(found.sparse) + len(found.dense)
    print(f"sparse: {len(found.sparse)} of {total} linear layers and convolutions are faster in CSR form, and use it")


def _print(rows: dict[str, dict[str, Any]], batch: int) -> None:
    from rich.table import Table

    table = Table("network", box=None, pad_edge=False)
    columns = ("parameters", "not zero", "MACs", "MB", "MB zipped", "MB in use", "ms, 1 image", f"images/s of {batch}")
    for column in columns:
        table.add_column(column, justify="right")
    for name, row in rows.items():
        low, middle, high = (1e3 * seconds for seconds in row["latency_seconds"])
        slow, median, fast = row["images_per_second"]
        table.add_row(
            name,
            *(f"{row[key]:,}" for key in ("parameters", "nonzero", "macs")),
            *(f"{row[key] / 1e6:.2f}" for key in ("disk", "compressed", "memory")),
            f"{middle:.2f} ({low:.2f} to {high:.2f})",
            f"{median:,.0f} ({slow:,.0f} to {fast:,.0f})",
        )
    show_table(table, 160)


if __name__ == "__main__":
    sys.exit(script("Measure what a ticket's network costs.", add_arguments, run))
