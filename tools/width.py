"""The width that the tickets of a job leave, layer by layer.

    python tools/width.py CONFIG and the arguments of prune.py

The tickets are made if they are not there. ``WORK_DIR/width.json`` has, for every ticket, seed and layer, the output
units that keep a weight and those that a path from the input to an output leads through. The table has their shares of
all units, the least share of a layer, and how many layers a path leads through. The report
(:mod:`pxframe_tools.report`) shows them.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from typing import Any

from pxframe_tools import measuring
from pxframe_tools.common import script


def add_arguments(parser: argparse.ArgumentParser) -> None:
    measuring.add_arguments(parser, images=1)


def run(args: argparse.Namespace) -> int:
    def measure(job: Any, model: Any, variant: str, ticket: Any, batches: list[Any]) -> dict[str, Any]:
        from pxframe.evidence.width import depth, widths

        found = widths(model, ticket, batches[0][0])
        units = sum(width.units for width in found)
        return {
            "layers": [dataclasses.asdict(width) for width in found],
            "kept": sum(width.kept for width in found) / units,
            "connected": sum(width.connected for width in found) / units,
            "narrowest": min(width.connected / width.units for width in found),
            "depth": depth(found),
            "layers_in_all": len(found),
        }

    job, rows = measuring.measured_rows(args, "width", {}, 1, measure)
    measuring.print_means(
        rows,
        {
            "units kept": ("kept", "{:.1%}".format),
            "units connected": ("connected", "{:.1%}".format),
            "narrowest layer": ("narrowest", "{:.1%}".format),
            "layers on a path": ("depth", "{:.1f}".format),
            "of": ("layers_in_all", "{:.0f}".format),
        },
    )
    print(f"\nwidths: {measuring.write(job, 'width', rows)}")
    return 0


if __name__ == "__main__":
    sys.exit(script("The width that the tickets of a job leave.", add_arguments, run))
