"""Transfer one pruned backbone to many tasks: the recipe, top to bottom.

    python tools/transfer.py CONFIG [--ticket F] [--tasks A B] [--work-dir D] [--resume]
                             [--device cpu|cuda|cuda:N] [--trust-checkpoint] [--cfg-options k=v]

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
"""

from __future__ import annotations

import argparse
import functools
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pxframe.base import ranks
from pxframe.base.errors import PxframeError
from pxframe_tools.common import add_job_arguments, begin, check_file, choose_threads, script

if TYPE_CHECKING:
    from pxframe.job.job import Job
    from pxframe.job.stages import Say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_job_arguments(parser)
    parser.add_argument("--ticket", metavar="F", help="transfer this ticket instead of pruning")
    parser.add_argument("--tasks", nargs="+", metavar="NAME", help="run only these tasks of the config")


def run(args: argparse.Namespace) -> int:
    if args.ticket:
        check_file(args.ticket, "ticket")
    config = begin(args, shares=True)
    from pxframe.job.config import chosen_tasks

    if not chosen_tasks(config, args.tasks):
        raise PxframeError(f"config {args.config} has no tasks to transfer to; `pxframe prune` makes tickets alone")

    # Imported here, since torch takes seconds: what is wrong so far has been told.
    from pxframe.job.claim import claimed, earlier_threads
    from pxframe.job.job import Job
    from pxframe.job.results import print_table, write_results
    from pxframe.job.stages import rehearse
    from pxframe.report.write import write_report
    from pxframe.ticket.ticket import Ticket

    given = (Path(args.ticket).stem, Ticket.load(args.ticket)) if args.ticket else None
    job = Job.from_config(config, device=args.device, tasks=args.tasks, resume=args.resume, given=given)
    print(f"threads: {choose_threads(earlier_threads(job))}", flush=True)
    say = functools.partial(print, flush=True)
    rehearse(job, say)

    rows = []
    with claimed(job):
        for repetition in job.repetitions():
            which = f"seed {repetition.seed}: " if len(job.seeds) > 1 else ""
            rows += repeat(repetition, lambda line, which=which: say(which + line))
        results = job.root / "results.json"
        about = {"config": args.config, "seeds": job.seeds, "device": job.device}
        ranks.by_first(lambda: write_results(results, rows, **about))
        page = ranks.by_first(lambda: write_report(job.root, job.tasks))
    print()
    print_table(rows)
    print(f"\nresults: {results}, {page}")
    return 0


def repeat(job: Job, say: Say) -> list[dict[str, Any]]:
    """One repetition of the job, with one seed: a row for every task and ticket."""
    from pxframe.job.stages import finished_rows, pretrain, transfer
    from pxframe.job.tickets import finished_tickets, make_tickets, make_whole_tickets, with_weights

    model = pretrain(job, say)

    # Prune once ...
    backbone_tickets = {} if job.whole else make_tickets(job, model, say)

    # ... and transfer to every task. Of tasks that were not asked for, rows that are there already stay in the table.
    rows = []
    for task in job.config.tasks:
        if task not in job.tasks:
            rows += finished_rows(job, task, model, finished_tickets(job, backbone_tickets, task), say)
            continue
        tickets = make_whole_tickets(job, task, model, say) if job.whole else backbone_tickets
        for variant, ticket in tickets.items():
            ready = with_weights(job, variant, ticket, model, say)
            rows.append(transfer(job, task, variant, model, ready, say))
    return rows


if __name__ == "__main__":
    sys.exit(script("Make the tickets of a job and train every task with each.", add_arguments, run))
