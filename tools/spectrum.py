"""The spectrum of the Neural Tangent Kernel of a job's networks, dense and pruned, on the same images.

    python tools/spectrum.py CONFIG [--images N] [--largest K] [--probes N] and the arguments of prune.py

The tickets are made if they are not there. ``WORK_DIR/spectrum.json`` has the eigenvalues of every ticket and seed, and
the report (:mod:`pxframe_tools.report`) shows them. The table says how far each network's spectrum is from the dense
one: the mean difference of the logarithms (base 10) of eigenvalues of the same rank, down to a millionth of the
largest.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from pxframe_tools import measuring
from pxframe_tools.common import script


def add_arguments(parser: argparse.ArgumentParser) -> None:
    measuring.add_arguments(parser, images=100)
    parser.add_argument(
        "--largest",
        type=int,
        metavar="K",
        help="compute only the K largest eigenvalues, by Lanczos' method, with error bounds; default: all of them",
    )
    parser.add_argument(
        "--probes",
        type=int,
        default=32,
        metavar="N",
        help="with --largest: random vectors to estimate the trace; default: 32",
    )


def run(args: argparse.Namespace) -> int:
    settings = {"largest": args.largest, **({"probes": args.probes} if args.largest else {})}

    def measure(job: Any, model: Any, variant: str, ticket: Any, batches: list[Any]) -> dict[str, Any]:
        from pxframe.evidence.spectrum import ntk_spectrum

        found = ntk_spectrum(model, batches, ticket, largest=args.largest, probes=args.probes)
        lists = {"eigenvalues": found.eigenvalues.tolist(), "errors": found.errors.tolist()}
        return {**lists, "trace": found.trace, "trace_error": found.trace_error, "size": found.size}

    job, rows = measuring.measured_rows(args, "spectrum", settings, args.images, measure)
    from pxframe.evidence.spectrum import log_distance

    dense = {row["seed"]: row for row in rows if not row["sparsity"]}
    for row in rows:
        own = dense.get(row["seed"])
        row["largest"] = row["eigenvalues"][0]
        row["relative_trace"] = None if own is None else row["trace"] / own["trace"]
        row["distance"] = None if own is None else log_distance(row["eigenvalues"], own["eigenvalues"])
    measuring.print_means(
        rows,
        {
            "trace": ("trace", "{:.4g}".format),
            "trace / dense": ("relative_trace", "{:.3g}".format),
            "largest": ("largest", "{:.4g}".format),
            "distance from dense": ("distance", "{:.2f}".format),
        },
    )
    print(f"\nspectra: {measuring.write(job, 'spectrum', rows, images=args.images)}")
    return 0


if __name__ == "__main__":
    sys.exit(script("Spectra of the Neural Tangent Kernel of a job's networks.", add_arguments, run))
