"""Transfer one pruned backbone to many tasks: the recipe, top to bottom.

    python tools/transfer.py CONFIG [--ticket F] [--tasks A B] [--work-dir D] [--resume]
                             [--device cpu|cuda|cuda:N] [--trust-checkpoint] [--cfg-options k=v]
                             [--jobs N] [--engine ray [--address A] [--gpus-per-run G]] [--retries K]

    torchrun --nproc-per-node 2 tools/transfer.py CONFIG ...

1. Everything is checked before work begins: config keys, names, data, device, the ticket's fit.
2. The backbone is built, and trained on the config's ``pretrain`` task if it has one.
3. It is pruned once for every scorer and sparsity in the config, and once for every control beside them (all weights,
   and random ones); ``--ticket`` takes a ticket made earlier instead of the scorers'. With ``prune.whole`` every task's
   whole model is pruned, head included.
4. Every task is trained from the same weights with every ticket. (``transfer="mask+weights"``: from the weights that a
   ticket's own training left.)
5. All of it is repeated for every seed in the config. One table is printed, with mean and standard deviation over
   the seeds; ``results.json`` and the report (:mod:`pxframe_tools.report`) are written into the work dir.

Stopped at any point, the same command with ``--resume`` ends with the same results as if it had not been. Nothing that
is finished is repeated, unless the settings or inputs that it depends on have changed: so a job grows by editing its
config. Each run leaves, in ``<work dir>/seed-N/<task>/<variant>``, its log (``train.log``) and the trained model
(``model.pth``), which loads without this library.

Under ``torchrun`` its processes share every batch of training, every test and the batches that scorers read. The first
of them decides, writes and prints. ``docs/processes.md`` says what is shared, and what is equal to one process.

With ``--jobs`` or ``--engine ray`` every stage is a process of its own (:mod:`pxframe.grid`). Its files and results are
the same, so that one way of running a job can go on with what the other began.
"""

from __future__ import annotations

import argparse
import functools
import sys
from dataclasses import replace

from pxframe.base import ranks
from pxframe.base.errors import PxframeError
from pxframe_tools.common import add_job_arguments, begin, check_file, choose_threads, job_of, script
from pxframe_tools.grid import add_grid_arguments, checked_grid, processes, run_cells


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_job_arguments(parser, shares=True)
    parser.add_argument("--ticket", metavar="F", help="transfer this ticket instead of pruning")
    parser.add_argument("--tasks", nargs="+", metavar="NAME", help="run only these tasks of the config")
    add_grid_arguments(parser)


def run(args: argparse.Namespace) -> int:
    if args.ticket:
        check_file(args.ticket, "ticket")
    on_grid = checked_grid(args)
    config = begin(args)
    from pxframe.job.config import chosen_tasks

    if not chosen_tasks(config, args.tasks):
        raise PxframeError(f"config {args.config} has no tasks to transfer to; `pxframe prune` makes tickets alone")

    # Imported here, since torch takes seconds: what is wrong so far has been told.
    from pxframe.job.claim import claimed, earlier_threads
    from pxframe.job.results import print_table, write_results
    from pxframe.report.write import write_report
    from pxframe.stages.rehearsal import rehearse
    from pxframe.stages.repetition import repeat

    job = job_of(args, config, args.tasks)
    threads = choose_threads(earlier_threads(job), processes(args))
    print(f"threads: {threads}{' in each process' if on_grid else ''}", flush=True)
    say = functools.partial(print, flush=True)
    rehearse(job, say)

    rows, complete = [], True
    with claimed(job):
        if on_grid:
            complete = run_cells(args, job, threads, say)
            job = replace(job, makes=frozenset())  # what is left to do is to read the rows
        for repetition in job.repetitions():
            rows += repeat(repetition, job.telling(repetition.seed, say))
        results = job.root / "results.json"
        about = {"config": args.config, "seeds": job.seeds, "device": job.device}
        ranks.by_first(lambda: write_results(results, rows, **about))
        page = ranks.by_first(lambda: write_report(job.root, job.tasks)) if rows else None
    if rows:
        print()
        print_table(rows)
        print(f"\nresults: {results}, {page}")
    return 0 if complete else 1


if __name__ == "__main__":
    sys.exit(script("Make the tickets of a job and train every task with each.", add_arguments, run))
