"""The ``pxframe`` command: ``prune``, ``transfer``, ``list`` and ``show``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from pxframe.command import add_common, one_line_errors, start


def list_registered(args: argparse.Namespace) -> int:
    """Print what plug-ins registered, one line a kind."""
    from pxframe import backbones, scorers, tasks

    start(args)
    for kind, found in (("scorers", scorers), ("backbones", backbones), ("tasks", tasks)):
        if args.kind in (None, kind):
            names = found()
            print(f"{kind + ':':<11}{' '.join(names)}" if args.kind is None else "\n".join(names))
    return 0


def show(args: argparse.Namespace) -> int:
    """Print a ticket: how it was made, and what is left of each layer."""
    from rich.console import Console
    from rich.table import Table

    from pxframe.steps import describe
    from pxframe.ticket import Ticket

    ticket = Ticket.load(args.ticket)
    print(describe(ticket))
    for key, value in sorted(ticket.meta.items()):
        print(f"  {key}: {value}")
    table = Table(box=None, pad_edge=False)
    table.add_column("layer")
    for column in ("shape", "kept", "density"):
        table.add_column(column, justify="right")
    for name, density in ticket.density_per_layer().items():
        mask = ticket.masks[name]
        table.add_row(name, "x".join(map(str, mask.shape)), f"{int(mask.sum()):,}", f"{density:.2%}")
    Console(width=None if sys.stdout.isatty() else 110).print(table)
    return 0


@one_line_errors
def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="pxframe", description="Foresight pruning: prune once, transfer everywhere.")
    commands = parser.add_subparsers(dest="command", required=True)
    arguments = sys.argv[1:] if argv is None else list(argv)

    command = commands.add_parser("list", help="what plug-ins registered")
    command.add_argument("kind", nargs="?", choices=("scorers", "backbones", "tasks"))
    add_common(command)
    command.set_defaults(run=list_registered)

    command = commands.add_parser("show", help="what is in a ticket")
    command.add_argument("ticket", metavar="TICKET")
    add_common(command)
    command.set_defaults(run=show)

    # These import a training stack; listing and showing must not wait for it.
    heavy = next((a for a in arguments if not a.startswith("-")), None) not in ("list", "show")
    for name, summary in (("prune", "make the tickets of a job"), ("transfer", "transfer one ticket to many tasks")):
        command = commands.add_parser(name, help=summary)
        if heavy:
            from pxframe_tools import prune, transfer

            module = {"prune": prune, "transfer": transfer}[name]
            module.add_arguments(command)
            command.set_defaults(run=module.run)
    args = parser.parse_args(arguments)
    return args.run(args)


if __name__ == "__main__":
    sys.exit(main())
