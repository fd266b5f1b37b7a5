"""Print a ticket: how it was made, what is left of each layer, and what the masked network costs."""

from __future__ import annotations

import argparse
import json
import sys

from pxframe_tools.common import add_common, check_file, script, show_table, start


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ticket", metavar="TICKET", help="file of a ticket, e.g. px-90.00.safetensors")
    add_common(parser)


def run(args: argparse.Namespace) -> int:
    check_file(args.ticket, "ticket")
    from rich.markup import escape
    from rich.table import Table

    from pxframe.base.errors import printable
    from pxframe.ticket.layers import describe, layers
    from pxframe.ticket.ticket import Ticket

    start(args)
    ticket = Ticket.load(args.ticket)
    print(describe(ticket))
    for key, value in sorted(ticket.meta.items()):
        if key not in ("emptied", "macs", "input", "left_dense", "made_by", "fused_rows"):  # told elsewhere, or long
            print(f"  {printable(f'{key}: {value}')}")
    if ticket.start:
        print(f"  weights of its own: {len(ticket.start)} tensors")
    found = layers(ticket)
    table = Table(box=None, pad_edge=False)
    table.add_column("layer")
    costs = [layer.macs for layer in found if layer.macs]
    for column in ("shape", "kept", "density", "output units kept", *(["MACs kept"] if costs else [])):
        table.add_column(column, justify="right")
    rows = [row for layer in found for row in ((layer.name, layer), *((f"  {p.name}", p) for p in layer.parts))]
    for name, layer in rows:
        macs = [f"{layer.macs[0]:,} of {layer.macs[1]:,}" if layer.macs else "?"]
        table.add_row(
            escape(name),
            "x".join(map(str, layer.shape)),
            f"{layer.kept:,}",
            f"{layer.kept / max(layer.total, 1):.2%}" if layer.kept else "emptied",
            f"{layer.units:,} of {layer.outputs:,}",
            *(macs if costs else []),
        )
    show_table(table)
    print(f"emptied layers: {', '.join(ticket.emptied) or 'none'}")
    if ticket.nearly_emptied:
        print(f"nearly emptied layers: {', '.join(ticket.nearly_emptied)}")
    if costs:
        left, dense = sum(c[0] for c in costs), sum(c[1] for c in costs)
        given = ticket.meta.get("input") or ()
        one_tensor = all(isinstance(number, int) for number in given)
        size = ("x".join(map(str, given)) if one_tensor else json.dumps(given)) or "its size"
        print(
            f"prunable layers, on one input of {size}: {left:,} of {dense:,} MACs ({left / max(dense, 1):.2%}), or "
            f"{2 * left:,} of {2 * dense:,} FLOPs: a multiply-accumulate (MAC) is two floating-point operations. "
            f"Only software that skips zeros saves them."
        )
    return 0


if __name__ == "__main__":
    sys.exit(script("Show what is in a ticket.", add_arguments, run))
