"""Make the tickets of a job, without transferring them.

    python tools/prune.py CONFIG [--work-dir D] [--resume] [--device cpu|cuda|cuda:N]
                          [--trust-checkpoint] [--cfg-options k=v]
                          [--jobs N] [--engine ray [--address A] [--gpus-per-run G]] [--retries K]

The first half of ``transfer.py``: the backbone is built, trained if the config has a ``pretrain`` task, and pruned once
for every scorer and sparsity. The tickets are ``<work dir>/seed-N/tickets/<scorer>-<sparsity>.safetensors``.
"""

from __future__ import annotations

import argparse
import functools
import sys

from pxframe_tools.common import add_job_arguments, begin, choose_threads, job_of, script
from pxframe_tools.grid import add_grid_arguments, checked_grid, processes, run_cells


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_job_arguments(parser, shares=True)
    add_grid_arguments(parser)


def run(args: argparse.Namespace) -> int:
    on_grid = checked_grid(args)
    config = begin(args)  # before torch is imported, which takes seconds
    from pxframe.job.claim import claimed, earlier_threads
    from pxframe.stages.rehearsal import rehearse
    from pxframe.stages.runs import pretrain
    from pxframe.stages.tickets import make_tickets, make_whole_tickets

    tasks = None if config.prune.whole else []  # the backbone is pruned for all of them alike
    job = job_of(args, config, tasks)
    threads = choose_threads(earlier_threads(job), processes(args))
    print(f"threads: {threads}{' in each process' if on_grid else ''}", flush=True)
    say = functools.partial(print, flush=True)
    rehearse(job, say)
    with claimed(job):
        if on_grid:
            return 0 if run_cells(args, job, threads, say, train=False) else 1
        for repetition in job.repetitions():
            tell = job.telling(repetition.seed, say)
            model = pretrain(repetition, tell)
            if not job.whole:
                make_tickets(repetition, model, tell)
                continue
            for task in job.tasks:
                make_whole_tickets(repetition, task, model, tell)
    return 0


if __name__ == "__main__":
    sys.exit(script("Make the tickets of a job.", add_arguments, run))
