"""The ``pxframe`` command: ``prune``, ``transfer``, ``report``, ``list``, ``show``, ``spectrum``, ``width``, ..."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

from pxframe.base.errors import PxframeError
from pxframe_tools import bench, prune, report, show, slim, spectrum, timing, transfer, width
from pxframe_tools.common import add_common, one_line_errors, parsed, start

#: Each is a module with ``add_arguments(parser)`` and ``run(args)``, and what it is for.
COMMANDS: dict[str, tuple[Any, str]] = {
    "show": (show, "show what is in a ticket"),
    "prune": (prune, "make the tickets of a job"),
    "transfer": (transfer, "make the tickets of a job and train every task with each"),
    "report": (report, "write the report of a job: a page, tables and figures"),
    "slim": (slim, "write a backbone without the channels that a ticket removed"),
    "bench": (bench, "measure a ticket's network: dense, masked, slim, sparse"),
    "spectrum": (spectrum, "compare the tangent kernels of dense and pruned networks"),
    "width": (width, "count the channels that the tickets of a job leave"),
    "timing": (timing, "measure seconds and results for several numbers of rounds"),
}


def list_registered(args: argparse.Namespace) -> int:
    """Print what plug-ins registered, one line a kind; with a pattern, the backbones or names that match."""
    from pxframe import backbones, scorers, tasks

    start(args)
    kinds = {"scorers": scorers, "backbones": backbones, "tasks": tasks}
    if args.pattern is None:
        for kind in [args.kind] if args.kind else kinds:
            names = kinds[kind]()
            print("\n".join(names) if args.kind else f"{kind + ':':<11}{' '.join(names)}")
        return 0
    if args.kind == "backbones":
        found = models(args.pattern)
    else:
        found = [name for name in kinds[args.kind]() if fnmatchcase(name, args.pattern)]
    if not found:
        raise PxframeError(f"none of the {args.kind} matches {args.pattern!r}")
    print("\n".join(found))
    return 0


def models(pattern: str) -> list[str]:
    """Every provider's models whose name matches, as ``PROVIDER MODEL``."""
    from pxframe.plugin.registry import build, names

    return [f"{name:<12} {model}" for name in names("backbone") for model in build("backbone", name).models(pattern)]


@one_line_errors
def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="pxframe", description="Foresight pruning: prune once, transfer everywhere.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    command = commands.add_parser("list", help="show what plug-ins registered")
    command.add_argument(
        "kind", nargs="?", choices=("scorers", "backbones", "tasks"), help="what to list; default: all three"
    )
    command.add_argument("pattern", nargs="?", help="which names, in quotes: list backbones 'resnet50*'")
    add_common(command)
    command.set_defaults(run=list_registered)

    for name, (module, purpose) in COMMANDS.items():
        command = commands.add_parser(name, help=purpose)
        module.add_arguments(command)
        command.set_defaults(run=module.run)

    arguments = sys.argv[1:] if argv is None else list(argv)
    if not arguments:  # somebody who asks what there is: a usage line alone would not say
        parser.print_help(sys.stderr)
        return 2
    args = parsed(parser, arguments)
    return args.run(args)


if __name__ == "__main__":
    sys.exit(main())
