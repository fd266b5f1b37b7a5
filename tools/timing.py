"""Seconds and results against the number of rounds, for each method of a job.

    python tools/timing.py CONFIG [--rounds 1 2 10 100 200] and the arguments of transfer.py

Every scorer of the config is run with each number of rounds, and its tickets are transferred to the config's tasks.
Then each prune is done once more, alone, and timed: from images that have been read to the ticket, the first look at
the network included. ``WORK_DIR/timing.json`` has a row for every method, number of rounds, sparsity, task and seed,
and the report (:mod:`pxframe_tools.report`) shows them.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

from pxframe_tools import measuring
from pxframe_tools.common import add_job_arguments, script

ROUNDS = (1, 2, 10, 100, 200)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_job_arguments(parser)
    parser.add_argument(
        "--rounds",
        nargs="+",
        type=measuring.number,
        default=list(ROUNDS),
        metavar="T",
        help=f"numbers of rounds to run; default: {' '.join(map(str, ROUNDS))}",
    )


def run(args: argparse.Namespace) -> int:
    job = measuring.tried(args, tasks=True, change=lambda config: _every(config, args.rounds))
    from pxframe.base.errors import PxframeError
    from pxframe.job.claim import claimed
    from pxframe.stages.repetition import repeat

    if job.whole:
        raise PxframeError("timing prunes the backbone, and prune.whole makes tickets of each task's model")
    with claimed(job):
        results = []
        for one in job.repetitions():
            results += repeat(one, job.telling(one.seed, measuring.say))
        timed = measuring.rows_of(job, "timing", {}, job.scored_on.samples, _timed)
    seconds = {(row["seed"], row["variant"]): row for row in timed}
    rows = []
    for row in results:
        if row["variant"] in job.prunings:
            found = seconds[row["seed"], row["variant"]]
            rows.append({**row, "prune_seconds": found["prune_seconds"], "rounds": found["rounds"]})
    for task in dict.fromkeys(row["task"] for row in rows):
        mine = [row for row in rows if row["task"] == task]
        unit = f"{task}: {mine[0]['metric']}"
        measuring.print_means(
            mine,
            {
                "rounds": ("rounds", "{:.0f}".format),
                "seconds to prune": ("prune_seconds", "{:.2f}".format),
                unit: ("value", "{:.2f}".format),
            },
        )
    print(f"\ntimes: {measuring.write(job, 'timing', rows)}")
    return 0


def _every(config: Any, rounds: list[int]) -> None:
    """Put each scorer in the place of itself, once for each number of rounds."""
    from pxframe.job.config import listed
    from pxframe.plugin.registry import default_scorer
    from pxframe.pruning.plan import split_settings

    found = []
    for scorer in listed(default_scorer() if config.prune.scorer is None else config.prune.scorer):
        built_from, settings = split_settings(scorer)
        found += [{**built_from, **settings, "rounds": number} for number in dict.fromkeys(rounds)]
    config.prune.scorer = found


def _timed(job: Any, model: Any, variant: str, ticket: Any, batches: list[Any]) -> dict[str, Any]:
    """The wall-clock time of the prune that made a ticket, done again."""
    import torch

    from pxframe.job.exclusions import default_exclude
    from pxframe.pruning.loop import prune

    pruning = job.prunings[variant]
    arguments = {"exclude": default_exclude(job.provider, model), **pruning.settings}
    if pruning.needs == "training":
        return {"prune_seconds": None, "rounds": arguments["rounds"]}
    begun = time.perf_counter()
    prune(model, batches, pruning.scorer, **arguments, loss=job.scored_on.task.loss, seed=job.seed, allow_collapse=True)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return {"prune_seconds": time.perf_counter() - begun, "rounds": arguments["rounds"]}


if __name__ == "__main__":
    sys.exit(script("Seconds and results against the number of rounds.", add_arguments, run))
