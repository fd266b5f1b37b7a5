"""Take the channels that a ticket removed out of its backbone, and write the small network.

    python tools/slim.py TICKET [--out FOLDER] [--weights FILE] [--onnx]

The ticket's file says which backbone it was made from; it is built and pruned, and compared with the small network.
FOLDER gets ``weights.safetensors``, ``slim.json`` and ``program.pt2``, and with ``--onnx`` ``program.onnx``;
``docs/slim.md`` says how to load them.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pxframe_tools.common import script, show_table
from pxframe_tools.ticketed import add_ticket_arguments, built, check_ticket_arguments, output

if TYPE_CHECKING:
    from torch import nn

    from pxframe.slimming.build import Slim


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", metavar="FOLDER", help="folder to write; default: TICKET-slim, beside the ticket")
    parser.add_argument("--onnx", action="store_true", help="write program.onnx too, checked with onnxruntime")
    add_ticket_arguments(parser)


def run(args: argparse.Namespace) -> int:
    check_ticket_arguments(args)
    import torch

    from pxframe.slimming.build import slim
    from pxframe.slimming.files import ONNX, save_slim
    from pxframe.slimming.onnx_file import export_onnx, load_onnx

    if args.onnx:
        load_onnx()
    given = built(args)
    example = torch.randn(2, *given.size, generator=torch.Generator().manual_seed(0))
    found = slim(given.model, given.ticket, example)
    _print(given.model, found, example)
    folder = output(args, "-slim")
    made_from = {"backbone": given.config, "ticket": Path(args.ticket).name, "input": given.size}
    files = save_slim(folder, found, given.model, example, made_from)
    if args.onnx:
        error = export_onnx(found.model, example, folder / ONNX)
        files.append(folder / ONNX)
        print(f"outputs of onnxruntime differ from those of torch by {error:.0e} of the largest")
    print("wrote " + ", ".join(str(file) for file in files))
    return 0


def _print(model: nn.Module, found: Slim, example: Any) -> None:
    from rich.markup import escape
    from rich.table import Table

    from pxframe.speed.cost import count_macs

    if found.channels:
        table = Table("layer", box=None, pad_edge=False)
        table.add_column("outputs", justify="right")
        for name, (before, after) in found.channels.items():
            table.add_row(escape(name), f"{after:,} of {before:,}")
        show_table(table)
    else:
        print(
            "nothing can be taken out: single weights seldom empty a channel; prune with granularity='channel', "
            "or see what its zeros are worth: pxframe bench --sparse"
        )
    networks = model, found.model
    costs = {
        "parameters": [sum(p.numel() for p in network.parameters()) for network in networks],
        "MACs of one image": [count_macs(network, example) for network in networks],
    }
    for what, (before, after) in costs.items():
        print(f"{what}: {after:,} of {before:,} ({after / max(before, 1):.1%})")
    print(f"outputs differ from those of the masked network by {found.error:.0e} of the largest")


if __name__ == "__main__":
    sys.exit(script("Take the channels that a ticket removed out of its backbone.", add_arguments, run))
